"""The two arms of the comparison: a folder is served and scored; the baseline's scores are kept.

The candidate is refused as soon as its deployment shows a fault or its smoke run fails, before
hours of scoring. The smoke run needs the baseline's answers to the same few prompts: they lie
beside its scores in the store, and where they are missing the baseline is served for them alone.
One server answers the smoke prompts and the suite, started when the first of them is asked. Where
GPUs are to spare the baseline is measured beside the candidate, in a process of its own: it fills
the store of baselines, where the run then finds it as it would find an older one.
"""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn, Self

from harness import baselines
from harness.artifacts import (
    BaselineInputs,
    Deployment,
    Endpoint,
    EngineSpec,
    Finding,
    Probe,
    Scorecard,
    Severity,
    SmokeReport,
    SmokeSet,
    Suite,
    load,
    made_from,
    save,
)
from harness.errors import EngineError, HarnessError, RejectedError
from harness.score import probe, read_arm, score, score_again
from harness.serve import Served, serve
from harness.smoke import compare

DEPLOYMENT_FILE = "deployment.json"
Gpus = tuple[int, ...] | None
"""Which GPUs an arm may use; None for all."""
_POLL_S = 0.5
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


class CandidateOrder(NamedTuple):
    """A checkpoint to serve, look at and score."""

    engine: EngineSpec
    folder: Path
    suite: Suite
    into: Path
    gpus: Gpus = None
    waived: frozenset[str] = frozenset()
    """Ids of findings that a reviewed waiver answers for."""


class Candidate:
    """A checkpoint that is served from its first use until the context ends."""

    def __init__(self, order: CandidateOrder) -> None:
        self._order = order
        self._server = ExitStack()
        self._served: Served | Endpoint | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def numerics(self) -> str:
        """Return which arithmetic is asked for."""
        return self._order.engine.numerics

    def probe(self, prompts: SmokeSet) -> Probe:
        """Put the smoke set to it.

        Raises:
            RejectedError: the deployment shows a fault of the checkpoint.
            EngineError: the engine failed.
        """
        return probe(self._start(), prompts, arm="candidate")

    def score(self) -> Scorecard:
        """Score it with the suite.

        Raises:
            RejectedError: the deployment shows a fault of the checkpoint.
            EngineError: the engine failed.
        """
        return score(self._start(), self._order.suite, arm="candidate", into=self._order.into)

    def stop(self) -> None:
        """Stop its server; the next use starts one again."""
        self._served = None
        self._server.close()

    def _start(self) -> Served | Endpoint:
        if self._served is None:
            engine, folder, _, into, gpus, waived = self._order
            into.mkdir(parents=True, exist_ok=True)
            _free_gpu_memory()
            served = self._server.enter_context(serve(engine, folder, records=into, gpus=gpus))
            save(served.deployment, into / DEPLOYMENT_FILE)
            refuse_findings(served.deployment, waived)
            self._served = served
        return self._served


def refuse_findings(deployment: Deployment, waived: frozenset[str]) -> None:
    """Refuse a candidate whose deployment shows a fault.

    Raises:
        RejectedError: it does, and the fault is not waived.
    """
    for finding in _errors(deployment):
        if finding.id not in waived:
            message = f"{finding.id}: {finding.message}"
            checks = failed_findings(deployment)
            raise RejectedError(message, reason=finding.reason, checks=checks)


def failed_findings(deployment: Deployment) -> tuple[str, ...]:
    """Return the ids of what the deployment shows and must not."""
    return tuple(finding.id for finding in _errors(deployment))


def measure_baseline(order: BaselineOrder) -> Path:
    """Return the folder with the baseline's scores, those of its second run (A/A) in `again/`.

    What the store does not have yet is measured now.

    Raises:
        EngineError: the engine failed, or did not load the unquantized model as it should.
    """
    suite, inputs, share = order.suite, order.inputs, order.rerun_share
    with baselines.entry(inputs.key) as entry:
        known = baselines.read_entry(entry)
        scored = (entry / "scorecard.json").exists()
        rerun = known.rerun if known else None
        is_whole = scored and rerun is not None and rerun.share >= share
        unasked = suite.smoke if suite.smoke and read_probe(entry, suite.smoke) is None else None
        if is_whole and unasked is None:
            return entry
        if not scored:
            _say_what_changed(inputs)
        with _serve_baseline(order, entry) as served:
            if unasked is not None:
                _keep_probe(served, unasked, entry)
            if not scored:
                score(served, suite, arm="baseline", into=entry)
            if not is_whole:
                _log.info("baseline: %.0f %% of its items once more (A/A)", 100 * share)
                score_again(served, suite, into=entry / baselines.AGAIN, share=share)
        if not is_whole:
            baselines.finish_entry(entry, inputs, share=share)
        return entry


def probe_baseline(
    order: BaselineOrder, prompts: SmokeSet, *, is_beside: Callable[[], bool] | None = None
) -> Probe:
    """Return the baseline's answers to the smoke set; asked now if the store has none.

    Args:
        order: the baseline.
        prompts: what is asked.
        is_beside: whether a process beside this one still works on the same baseline, which
            answers them first of all; None where there is none.

    Raises:
        EngineError: the engine failed, or did not load the unquantized model as it should.
    """
    folder = baselines.folder_of(order.inputs.key)
    while (kept := read_probe(folder, prompts)) is None and is_beside is not None and is_beside():
        time.sleep(_POLL_S)
    if kept is not None:
        return kept
    with baselines.entry(order.inputs.key) as entry:
        kept = read_probe(entry, prompts)
        if kept is not None:
            return kept
        with _serve_baseline(order, entry) as served:
            return _keep_probe(served, prompts, entry)


class SmokeBaseline(NamedTuple):
    """Where the baseline's answers to the smoke set are, or who gives them."""

    prompts: SmokeSet
    known: Probe | None
    """Kept in the run directory."""
    order: BaselineOrder | None
    """None where the baseline was scored elsewhere."""
    is_beside: Callable[[], bool] | None

    def answers(self) -> Probe | None:
        """Return them, asked now if nobody did; None where nobody can be asked."""
        if self.known is not None or self.order is None:
            return self.known
        return probe_baseline(self.order, self.prompts, is_beside=self.is_beside)


def smoke_candidate(candidate: Candidate, baseline: SmokeBaseline) -> SmokeReport:
    """Compare the candidate's answers to the smoke set with the baseline's.

    Raises:
        RejectedError: the candidate's deployment shows a fault of the checkpoint.
        EngineError: the engine failed.
    """
    if baseline.is_beside is None:
        baseline.answers()  # before the candidate takes the device
    theirs = candidate.probe(baseline.prompts)
    return compare(baseline.prompts, baseline.answers(), theirs, numerics=candidate.numerics)


def read_probe(folder: Path, prompts: SmokeSet) -> Probe | None:
    """Return the answers to the smoke set that are kept in `folder`; None if to another, or none.

    Raises:
        RunDirectoryError: the file of an own answer is damaged.
    """
    path = folder / baselines.PROBE_FILE
    if made_from(path) != prompts.digest:
        return None
    return load(Probe, path)


def _keep_probe(served: Served | Endpoint, prompts: SmokeSet, entry: Path) -> Probe:
    answers = probe(served, prompts, arm="baseline")
    save(answers, entry / baselines.PROBE_FILE, made_from=prompts.digest)
    return answers


@contextmanager
def _serve_baseline(order: BaselineOrder, entry: Path) -> Iterator[Served | Endpoint]:
    _free_gpu_memory()
    with serve(order.engine, order.model, records=entry, gpus=order.gpus) as served:
        save(served.deployment, entry / DEPLOYMENT_FILE)
        for finding in _errors(served.deployment):
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


def keep_baseline(folder: Path, run: Path) -> Scorecard:
    """Copy a baseline's scores into the run directory, checked, and return its scorecard.

    Args:
        folder: of the scores, or the file of a bundle.
        run: directory of the run.
    """
    baselines.put_into(folder, run / "baseline")
    return read_arm(run / "baseline").scorecard


def assign_gpus(engine: EngineSpec) -> tuple[Gpus, Gpus]:
    """Return the GPUs of the candidate and of the baseline; None twice where they must share."""
    if engine.name != "vllm" or not engine.device.startswith("cuda"):
        return None, None
    visible = _visible_gpus()
    size = engine.tensor_parallel_size
    if len(visible) < 2 * size:
        return None, None
    return visible[:size], visible[size : 2 * size]


@contextmanager
def baseline_beside(order: BaselineOrder) -> Iterator[Callable[[], bool]]:
    """Measure the baseline in a process of its own while the context lasts.

    Yields a function that says whether it is still at work.

    A failure is not reported here: the run asks for the same baseline afterwards, measures it
    again and says what is wrong.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_measure_in_process,
        args=(order, _log.getEffectiveLevel()),
        name="baseline",
    )
    process.start()
    finished = False
    try:
        yield process.is_alive
        process.join()
        finished = True
    finally:
        if not finished:
            process.terminate()
            process.join()


def _measure_in_process(order: BaselineOrder, log_level: int) -> None:
    signal.signal(signal.SIGTERM, _leave)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("baseline | %(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(log_level)
    try:
        measure_baseline(order)
    except HarnessError as error:
        _log.warning("failed, will be tried again: %s", error)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        _leave(signal.SIGINT, None)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + signum)


def _errors(deployment: Deployment) -> list[Finding]:
    return [f for f in deployment.findings if f.severity is Severity.ERROR]


def _visible_gpus() -> tuple[int, ...]:
    """Return the GPUs that this process may use, by the numbers that CUDA_VISIBLE_DEVICES takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(int(n) for n in names) if all(n.isdigit() for n in names) else ()
    import torch

    return tuple(range(torch.cuda.device_count()))


def _free_gpu_memory() -> None:
    """Give back what calibration held: an engine asks for nearly all of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
