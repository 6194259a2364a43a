"""What a release is asked for beyond a verdict of GO; all that is missing is told at once."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import (
    Arm,
    Decision,
    DeploymentsTrial,
    MissingEvidence,
    Objection,
    RunRecord,
    Scorecard,
    Surroundings,
    Verdict,
)
from harness.baselines import read_rerun
from harness.errors import ExitCode, HarnessError, ReasonCode
from harness.evidence import folder_of
from harness.gate import count_flips, sum_flips
from harness.installed import ENGINE, read_surroundings
from harness.rundir import process_in
from harness.runs import read_run
from harness.score import read_arm
from harness.signoff.folders import strangers
from harness.stages import BASELINE_FOLDER

_IN_PROCESS = "reference"
_DOCKER = "docker"
_MOST_NAMED = 3
_PINNED = ("@sha256:", "sha256:")
_RUN_AGAIN = "Type the command of the run again"


class Looked(NamedTuple):
    """A run that was looked at, and what stands against its release."""

    record: RunRecord
    surroundings: tuple[Surroundings, ...]
    objections: tuple[Objection, ...]


def look_at(run_dir: Path) -> Looked:
    """Read a run and say everything that stands against signing it off.

    Raises:
        RunDirectoryError: it holds no run, or a file in it is damaged or was changed.
    """
    record, surroundings = read_run(run_dir), read_surroundings(run_dir)
    found = list(_against_ending(record, run_dir))
    if record.verdict is not None:
        found += _against_deployments(record)
        found += _against_asking(record)
        found += _against_numerics(record.candidate)
        found += _against_arms(record.verdict, run_dir)
        found += _against_surroundings(record, surroundings)
        found += _against_files(record, run_dir)
        found += _against_waivers(record.verdict)
    return Looked(record, surroundings, tuple(found))


def exit_code_of(objections: Sequence[Objection]) -> int:
    """Return how a refusal ends: NO-GO wins over INCONCLUSIVE, which wins over the rest."""
    codes = {objection.exit_code for objection in objections}
    ranked = (ExitCode.NO_GO, ExitCode.INCONCLUSIVE, ExitCode.USAGE)
    return int(next((code for code in ranked if code in codes), ExitCode.GO))


def against_run(record: RunRecord, run_dir: Path) -> list[Objection]:
    """Return what stands against believing that the files of a run were judged GO."""
    found = list(_against_ending(record, run_dir))
    if record.verdict is not None:
        found += _against_deployments(record)
    return found


def _missing(message: str) -> Objection:
    return Objection(exit_code=int(ExitCode.USAGE), message=message)


def _against_ending(record: RunRecord, run_dir: Path) -> Iterator[Objection]:
    process = process_in(run_dir)
    if process is not None:
        yield _missing(f"process {process} is at work in '{run_dir}'. Wait until it has ended.")
        return
    if record.failure is not None:
        changed = record.failure.reason_code is ReasonCode.EVIDENCE_CHANGED
        what = "" if changed else "the run has no verdict: "
        yield _missing(f"{what}{record.failure.message}. {_RUN_AGAIN}.")
    elif record.verdict is None:
        yield _missing(f"the run in '{run_dir}' has no verdict. {_RUN_AGAIN}.")
    elif record.verdict.decision is not Decision.GO:
        code = {Decision.NO_GO: ExitCode.NO_GO, Decision.INCONCLUSIVE: ExitCode.INCONCLUSIVE}
        decided = record.verdict.decision
        message = f"the verdict is {decided.value}: {record.verdict.summary}"
        yield Objection(exit_code=int(code[decided]), message=message)


def _against_deployments(record: RunRecord) -> Iterator[Objection]:
    if isinstance(record.recipe, DeploymentsTrial):
        yield _missing(
            "two running deployments were judged, and nobody knows which files they serve. Gate "
            "the checkpoint itself: harness gate CHECKPOINT --baseline MODEL."
        )


def _against_asking(record: RunRecord) -> Iterator[Objection]:
    recipe = record.recipe
    if not recipe.suite.signoff:
        yield _missing(
            f"suite '{recipe.suite.name}' is not one to sign off with. Run again with --suite "
            "signoff, without --margin, --budget and --tasks, or with a suite whose file says "
            "'signoff: true'."
        )
    if recipe.missing_evidence is MissingEvidence.GO:
        yield _missing(
            "the run was told to end GO on scores alone (--missing-evidence go). Run again "
            "without it."
        )


def _against_numerics(candidate: Scorecard | None) -> Iterator[Objection]:
    if candidate is None:
        return
    served = candidate.deployment
    hidden = sorted(set(served.declared) - set(served.exercised))
    if hidden:
        yield _missing(
            f"the checkpoint declares {', '.join(hidden)}, which the suite was not answered with "
            f"({served.computed} was computed). Run again with --numerics declared."
        )
    for gap in served.not_observed:
        yield _missing(f"{gap.message}: {gap.reason.value}. {_RUN_AGAIN} where it can be seen.")


def _against_arms(verdict: Verdict, run_dir: Path) -> Iterator[Objection]:
    """Say what is wrong with the answers that the verdict rests on, those of the A/A among them."""
    try:
        read_arm(run_dir)
        baseline = read_arm(run_dir / BASELINE_FOLDER)
        rerun = read_rerun(run_dir / BASELINE_FOLDER)
    except HarnessError as error:
        yield _missing(str(error))
        return
    if rerun is None:
        yield _missing(
            "the baseline's second run (A/A) is not on record, so nobody knows how often it "
            "answers otherwise by itself. Measure it: harness baseline add, then run again."
        )
    elif not _is_judged_rerun(verdict, baseline, rerun):
        yield _missing(
            f"the baseline's second run in '{run_dir / BASELINE_FOLDER}' is not the one that was "
            f"judged with. {_RUN_AGAIN}."
        )


def _is_judged_rerun(verdict: Verdict, baseline: Arm, rerun: Arm) -> bool:
    return verdict.rerun_flip_rate == sum_flips(count_flips(baseline, rerun).values()).rate


def _against_surroundings(record: RunRecord, seen: tuple[Surroundings, ...]) -> Iterator[Objection]:
    if not seen:
        yield _missing(
            "it is not on record what was installed where the run was at work. Run again with "
            "--fresh."
        )
        return
    for now in (later for later in seen[1:] if not later.is_as(seen[0])):
        changes = list(seen[0].changes(now)) or ["files of a package differ"]
        named = "; ".join(changes[:_MOST_NAMED])
        more = f" and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
        yield _missing(
            f"the run was at work in two environments: {named}{more}. Run again with --fresh."
        )
    engine = record.recipe.engine
    if engine.name == _DOCKER and not _is_pinned(engine.image):
        yield _missing(
            f"the engine's image '{engine.image}' is named by no digest. Run again with --image "
            "NAME@sha256:DIGEST."
        )
    known = {environment.name for environment in seen[0].environments}
    if engine.name not in (_IN_PROCESS, _DOCKER) and ENGINE not in known:
        yield _missing(
            f"it is not on record what the environment of {engine.name} holds ('{engine.place}'). "
            "Name it with --vllm PATH and run again with --fresh."
        )


def _is_pinned(image: str | None) -> bool:
    return image is not None and (_PINNED[0] in image or image.startswith(_PINNED[1]))


def _against_files(record: RunRecord, run_dir: Path) -> Iterator[Objection]:
    folder = folder_of(run_dir, record.recipe)
    unjudged = strangers(folder) if folder.is_dir() else ()
    if unjudged:
        named = ", ".join(unjudged[:_MOST_NAMED])
        yield _missing(
            f"'{folder}' holds files that no verdict covers ({named}; {len(unjudged)} in all). "
            "Move them elsewhere: a release is what was judged and nothing beside it."
        )


def _against_waivers(verdict: Verdict) -> Iterator[Objection]:
    today = datetime.now(UTC).date()
    for waived in verdict.waived:
        if waived.expires < today:
            yield _missing(
                f"the waiver of '{waived.check}' by {waived.approver} expired on "
                f"{waived.expires}. Have it reviewed and run again."
            )
