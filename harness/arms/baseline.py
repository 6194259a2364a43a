"""The baseline's arm: measured once, kept in the store, copied into each run."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from harness import baselines, score
from harness.arms.elsewhere import asks_elsewhere
from harness.arms.findings import DEPLOYMENT_FILE, errors_of
from harness.arms.gpus import Gpus, free_gpu_memory
from harness.artifacts import (
    BaselineInputs,
    Endpoint,
    EngineSpec,
    Probe,
    Scorecard,
    SmokeSet,
    Suite,
    load,
    save,
)
from harness.errors import EngineError
from harness.models import unchanged
from harness.serve import Served, serve

_log = logging.getLogger("harness.arms")


class BaselineOrder(NamedTuple):
    """A baseline to measure; all of it may cross to another process."""

    engine: EngineSpec
    model: Path
    suite: Suite
    inputs: BaselineInputs
    """What decides its answers, whose digest names its place in the store."""
    gpus: Gpus = None
    rerun_share: float = baselines.RERUN_SHARE


def measure_baseline(order: BaselineOrder, *, alone: bool = True) -> Path:
    """Return the folder with the baseline's scores, those of its second run (A/A) in `again/`.

    What the store does not have yet is measured now.

    Args:
        order: what is measured.
        alone: whether nothing else of the run is at work meanwhile.

    Raises:
        EngineError: the engine failed, or did not load the unquantized model as it should.
    """
    suite, inputs, share = order.suite, order.inputs, order.rerun_share
    baselines.check_kept(inputs)
    with baselines.entry(inputs.key) as entry:
        lacking = baselines.missing(inputs, suite.smoke, share=share)
        if not lacking.anything:
            return entry
        if lacking.scores:
            _say_what_changed(inputs)
        with _serve_baseline(order, entry) as served:
            elsewhere = asks_elsewhere(served, suite, arm="baseline")
            if suite.smoke is not None and lacking.answers:
                _keep_probe(served, suite.smoke, entry)
            if lacking.scores:
                score.score(
                    served, suite, arm="baseline", into=entry, alone=alone, elsewhere=elsewhere
                )
            if lacking.rerun:
                _log.info("baseline: %.0f %% of its items once more (A/A)", 100 * share)
                again = entry / baselines.AGAIN
                score.score_again(served, suite, into=again, share=share, elsewhere=elsewhere)
        if lacking.rerun:
            baselines.finish_entry(entry, inputs, share=share)
        return entry


def lacking_of(order: BaselineOrder) -> baselines.Missing:
    """Return what the store does not have of what is ordered, as it is now.

    Raises:
        BaselineError: what is there was changed.
    """
    return baselines.missing(order.inputs, order.suite.smoke, share=order.rerun_share)


def probe_baseline(order: BaselineOrder, prompts: SmokeSet) -> Probe:
    """Return the baseline's answers to the smoke set; asked now if the store has none.

    Raises:
        EngineError: the engine failed, or did not load the unquantized model as it should.
    """
    with baselines.entry(order.inputs.key) as entry:
        kept = read_probe(entry, prompts)
        if kept is not None:
            return kept
        with _serve_baseline(order, entry) as served:
            return _keep_probe(served, prompts, entry)


def read_probe(folder: Path, prompts: SmokeSet) -> Probe | None:
    """Return the answers to the smoke set that are kept in `folder`; None if to another, or none.

    Raises:
        RunDirectoryError: the file of an own answer is damaged.
    """
    if not baselines.has_answers(folder, prompts):
        return None
    return load(Probe, folder / baselines.PROBE_FILE)


def keep_baseline(folder: Path, into: Path, *, digest: str | None = None) -> Scorecard:
    """Copy a baseline's scores into a folder of the run, checked, and return its scorecard.

    Args:
        folder: of the scores, or the file of a bundle.
        into: where they are to lie.
        digest: of the scores, where they were given and looked at before.

    Raises:
        BaselineError: they are no whole baseline, or not those that were looked at.
    """
    baselines.put_into(folder, into, digest=digest)
    return score.read_arm(into).scorecard


def _keep_probe(served: Served | Endpoint, prompts: SmokeSet, entry: Path) -> Probe:
    answers = score.probe(served, prompts, arm="baseline")
    # Answers that failed are this run's misfortune, not what later runs are compared with.
    failed = [one.error for one in answers.readings] + [one.error for one in answers.replies]
    if not any(failed):
        save(answers, entry / baselines.PROBE_FILE, made_from=baselines.asked_with(prompts))
    return answers


@contextmanager
def _serve_baseline(order: BaselineOrder, entry: Path) -> Iterator[Served | Endpoint]:
    free_gpu_memory()
    loading = unchanged(order.model, order.inputs.model_digest, meanwhile="loaded")
    with ExitStack() as stack:
        with loading:
            server = serve(order.engine, order.model, records=entry, gpus=order.gpus)
            served = stack.enter_context(server)
        save(served.deployment, entry / DEPLOYMENT_FILE)
        for finding in errors_of(served.deployment):
            message = f"the baseline cannot be trusted, {finding.id}: {finding.message}"
            raise EngineError(message, reason=finding.reason)
        yield served


def _say_what_changed(inputs: BaselineInputs) -> None:
    """Say why an older baseline of this model and suite is of no use, where there is one."""
    outdated = baselines.outdated_by(inputs)
    if outdated is not None:
        kept, changes = outdated
        _log.info(
            "baseline: %s of '%s' on suite '%s' does not fit, it is measured anew: %s",
            kept.key[:8],
            inputs.model,
            inputs.suite,
            "; ".join(map(str, changes)),
        )
