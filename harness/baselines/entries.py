"""Finish an entry, and check one before it is used: nothing in it is taken on trust.

An entry that lies in the store is checked like one that came in a bundle: somebody may have written
there since. It must be an unquantized model's, and its parts must be of one measurement.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import (
    WAY_OF_ASKING,
    Arm,
    BaselineEntry,
    BaselineInputs,
    Deployment,
    Probe,
    Rerun,
    Scorecard,
    SmokeSet,
    load,
    made_from,
    record_digest,
    save,
)
from harness.baselines.store import AGAIN, ENTRY_FILE, SCORECARD_FILE, folder_of
from harness.errors import BaselineError, HarnessError
from harness.gate import count_flips, sum_flips
from harness.score import read_arm

PROBE_FILE = "probe.json"
SMOKE_SET = "smoke set"
"""What the answers in it are made from."""
RERUN_SHARE = 0.5
"""Of each task's items that are asked again (A/A) where a run measures its own baseline."""
_SAMPLES = re.compile(r"samples/[^/\\\x00-\x1f.][^/\\\x00-\x1f]*\.jsonl")


def finish_entry(folder: Path, inputs: BaselineInputs, *, share: float) -> BaselineEntry:
    """Write entry.json beside the scores of both runs, which makes the entry complete."""
    first = read_arm(folder)
    entry = BaselineEntry(
        inputs=inputs,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        num_items=sum(task.num_answers for task in first.scorecard.tasks),
        rerun=compare_runs(first, read_arm(folder / AGAIN), share=share),
    )
    save(entry, folder / ENTRY_FILE)
    return entry


class Missing(NamedTuple):
    """What the store does not have of a baseline."""

    scores: bool
    rerun: bool
    """Its second run, or a part of it that is asked for."""
    answers: bool
    """Those to the smoke set."""

    @property
    def anything(self) -> bool:
        """Return whether the baseline has to be served."""
        return any(self)


def missing(
    inputs: BaselineInputs, smoke: SmokeSet | None, *, share: float = RERUN_SHARE
) -> Missing:
    """Return what the store does not have of a baseline now.

    Args:
        inputs: what decides its answers.
        smoke: what it is asked before its suite.
        share: of each task's items that are asked again.

    Raises:
        BaselineError: what is there was changed.
    """
    folder = folder_of(inputs.key)
    known = read_entry(folder)
    scored = record_digest(folder / SCORECARD_FILE) is not None
    rerun = known.rerun if known and scored else None
    return Missing(
        scores=not scored,
        rerun=rerun is None or rerun.share < share,
        answers=smoke is not None and not has_answers(folder, smoke),
    )


def has_answers(folder: Path, smoke: SmokeSet) -> bool:
    """Return whether the answers to the smoke set lie in `folder`."""
    return made_from(folder / PROBE_FILE) == asked_with(smoke)


def asked_with(smoke: SmokeSet) -> dict[str, str]:
    """Return what answers to a smoke set depend on, besides model and engine."""
    return {SMOKE_SET: smoke.digest, "way of asking": WAY_OF_ASKING}


def read_entry(folder: Path) -> BaselineEntry | None:
    """Return what `folder` was made from; None where nothing says so.

    Raises:
        BaselineError: what says so was changed.
    """
    path = folder / ENTRY_FILE
    try:
        return load(BaselineEntry, path) if made_from(path) is not None else None
    except HarnessError as error:
        raise _unusable(folder, str(error)) from error


def check_kept(inputs: BaselineInputs) -> None:
    """Check what the store holds for these inputs, if it holds anything complete.

    Raises:
        BaselineError: it is damaged, contradicts itself, or is the baseline of something else.
    """
    folder = folder_of(inputs.key)
    entry = read_entry(folder)
    if entry is None or not (folder / SCORECARD_FILE).is_file():
        return
    if entry.inputs.key != inputs.key:
        found = f"it is of '{entry.inputs.model}' on suite '{entry.inputs.suite}'"
        raise _unusable(folder, f"{found}, key {entry.inputs.key:.12}")
    try:
        check_entry(folder, named=str(folder))
    except BaselineError as error:
        raise _unusable(folder, str(error)) from error


def _unusable(folder: Path, why: str) -> BaselineError:
    message = (
        f"the store's baseline {folder.name[:12]} is not what its key says: {why} Remove the "
        f"folder '{folder}', and it is measured again."
    )
    return BaselineError(message)


def compare_runs(first: Arm, again: Arm, *, share: float) -> Rerun:
    """Count the items that the two runs of one model answered differently."""
    flips = sum_flips(count_flips(first, again).values())
    return Rerun(share=share, num_items=flips.num_items, num_flips=flips.num_flips)


def check_entry(folder: Path, *, named: str) -> BaselineEntry:
    """Read an entry whole and check that its parts are of one measurement.

    Args:
        folder: of the entry.
        named: what to call it in an error.

    Raises:
        BaselineError: a part is missing, malformed, or contradicts another.
    """
    try:
        entry = load(BaselineEntry, folder / ENTRY_FILE)
        first = _read(folder)
        again = _read(folder / AGAIN) if (folder / AGAIN).exists() else None
        answers = _read_probe(folder)
    except (HarnessError, RecursionError) as error:  # the latter from JSON nested without end
        message = f"'{named}' is damaged: {error}"
        raise BaselineError(message) from error
    for card in (arm.scorecard for arm in (first, again) if arm is not None):
        _refuse(_contradiction(card, entry), named)
        _refuse(_no_baseline(card.deployment), named)
    if answers is not None:
        _refuse(_other_answers(answers, entry), named)
    _refuse(_wrong_counts(entry, first, again), named)
    return entry


def _read(folder: Path) -> Arm:
    card = load(Scorecard, folder / SCORECARD_FILE)
    for score in card.tasks:
        if not _SAMPLES.fullmatch(score.samples):
            message = f"its scorecard names the file '{score.samples}', which is not in samples/"
            raise BaselineError(message)
    return read_arm(folder)


def _read_probe(folder: Path) -> Probe | None:
    path = folder / PROBE_FILE
    return load(Probe, path) if path.exists() else None


def _no_baseline(deployment: Deployment) -> str | None:
    if deployment.declared:
        return f"the model that was scored is quantized ({', '.join(deployment.declared)})"
    return None


def _other_answers(answers: Probe, entry: BaselineEntry) -> str | None:
    found, said = answers.deployment.checkpoint_digest, entry.inputs.model_digest
    if (answers.arm, found) != ("baseline", said):
        return f"the smoke answers are of a {answers.arm} {found:.12}, the scores of {said:.12}"
    return _no_baseline(answers.deployment)


def _contradiction(card: Scorecard, entry: BaselineEntry) -> str | None:
    inputs = entry.inputs
    pairs = (
        ("arm", card.arm, "baseline"),
        ("suite", card.suite_digest, inputs.suite_digest),
        ("model", card.deployment.checkpoint_digest, inputs.model_digest),
        ("engine", card.deployment.engine, inputs.engine.name),
        ("lm-eval's version", card.lm_eval_version, inputs.versions.get("lm_eval")),
    )
    return next(
        (
            f"{what} is '{scored}' in its scores and '{said}' in {ENTRY_FILE}"
            for what, scored, said in pairs
            if scored != said
        ),
        None,
    )


def _wrong_counts(entry: BaselineEntry, first: Arm, again: Arm | None) -> str | None:
    num_items = sum(len(samples) for samples in first.samples.values())
    if num_items != entry.num_items:
        return f"it holds {num_items} items where {entry.num_items} were scored"
    rerun = entry.rerun
    if (rerun is None) != (again is None):
        return "its second run and what is said of it do not go together"
    if again is not None and rerun is not None:
        counted = compare_runs(first, again, share=rerun.share)
        if counted != rerun:
            return f"its runs differ in {counted.num_flips} items, not in {rerun.num_flips}"
    return None


def _refuse(problem: str | None, named: str) -> None:
    if problem is not None:
        message = f"'{named}' contradicts itself: {problem}. Export it again where it was measured."
        raise BaselineError(message)
