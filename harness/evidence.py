"""Check that everything a verdict rests on is about the same files, and still unchanged.

Each stage records the digest of the files that it looked at. Before the judge decides, these are
compared, so that files which were exchanged between two stages, or put back afterwards, end the
run. The verdict records the digest of every result that it was made from, so `status` and `report`
can say what has changed since.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import (
    Checkpoint,
    IntegrityReport,
    MadeFrom,
    Scorecard,
    SmokeReport,
    Trial,
    digest_of,
    made_from,
    record_digest,
)
from harness.errors import EvidenceError, HarnessError
from harness.installed import ENVIRONMENT_FILE
from harness.models import digest_folder
from harness.rundir import RunDirectory, known_digests, read_recipe
from harness.stages import (
    BASELINE,
    CANDIDATE,
    CHECKPOINT_FOLDER,
    EXPORT,
    JUDGE,
    SMOKE,
    SMOKE_DECLARED,
    STAGES,
    VERIFY,
)

RECIPE, CHECKPOINT, BASELINE_MODEL = "recipe", "checkpoint", "baseline model"
ENVIRONMENT = "environment"
"""Ingredients of a verdict that are no nouns of stages; those go by the stage's name."""


class _Seen(NamedTuple):
    """Which files a stage was about."""

    where: str
    digest: str


def folder_of(directory: Path, trial: Trial) -> Path:
    """Return the folder of the checkpoint that the run in `directory` is about."""
    return Path(trial.checkpoint) if trial.checkpoint else directory / CHECKPOINT_FOLDER


def check_evidence(run: RunDirectory, folder: Path, baseline_digest: str) -> None:
    """Refuse to judge what does not belong together.

    Args:
        run: with the nouns of all stages before the judge.
        folder: of the checkpoint.
        baseline_digest: of the files of the model that the checkpoint is compared with.

    Raises:
        EvidenceError: two stages looked at different files, with both.
    """
    _refuse_different(
        "checkpoint", [*_checkpoints(run), _Seen("on the disk", digest_folder(folder))]
    )
    asked = _Seen("as the run was asked for", baseline_digest)
    _refuse_different("baseline", [asked, *_baselines(run)])


def ingredients(run: RunDirectory, trial: Trial, baseline_digest: str | None = None) -> MadeFrom:
    """Return the digests of all that a verdict on the run is made from, as far as it came."""
    folder = folder_of(run.path, trial)
    found = {RECIPE: digest_of(trial)}
    if folder.is_dir():
        found[CHECKPOINT] = digest_folder(folder)
    if baseline_digest is not None:
        found[BASELINE_MODEL] = baseline_digest
    environment = record_digest(run.path / ENVIRONMENT_FILE)
    if environment is not None:
        found[ENVIRONMENT] = environment
    return {**found, **run.digests}


def changes_since_judged(directory: Path) -> list[str]:
    """Say what of a finished run is not what was judged; nothing where there is no verdict.

    Raises:
        RunDirectoryError: the directory holds no run, or one of its files was changed.
    """
    judged = made_from(directory / JUDGE.file)
    if judged is None:
        return []
    trial = read_recipe(directory)
    found = list(_changed_nouns(directory, judged))
    if digest_of(trial) != judged.get(RECIPE):
        found.append("the recipe is not the one that was judged by")
    environment = directory / ENVIRONMENT_FILE
    if ENVIRONMENT in judged and record_digest(environment) != judged[ENVIRONMENT]:
        found.append(f"'{environment}' is not the one that was judged with")
    folder = folder_of(directory, trial)
    if CHECKPOINT in judged and (now := _now_or_gone(folder)) != judged[CHECKPOINT]:
        found.append(
            f"the checkpoint '{folder}' is not the one that was judged: its digest is "
            f"{now:.12} and was {judged[CHECKPOINT]:.12}"
        )
    return found


def _changed_nouns(directory: Path, judged: MadeFrom) -> Iterator[str]:
    known = known_digests(directory)
    for stage in STAGES:
        if stage is JUDGE or stage.name not in judged:
            continue
        path = directory / stage.file
        found = record_digest(path)
        if found is None:
            yield f"'{path}' is gone or damaged"
        elif found != judged[stage.name]:
            yield f"'{path}' is not the one that was judged: {found:.12}, {judged[stage.name]:.12}"
    own = record_digest(directory / JUDGE.file)
    if known.get(JUDGE.name) != own:
        yield f"'{directory / JUDGE.file}' is not the verdict that this run wrote"


def _checkpoints(run: RunDirectory) -> Iterator[_Seen]:
    """Yield the checkpoint's files as each stage saw them, in their order."""
    made: Checkpoint | None = run.nouns.get(EXPORT.name)
    if made is not None:
        yield _Seen("as exported", made.digest)
    integrity: IntegrityReport | None = run.nouns.get(VERIFY.name)
    if integrity is not None:
        yield _Seen("as verified", integrity.checkpoint_digest)
    for stage in (SMOKE, SMOKE_DECLARED):
        smoke: SmokeReport | None = run.nouns.get(stage.name)
        if smoke is not None:
            yield _Seen(f"as smoked ({smoke.numerics})", smoke.checkpoint_digest)
    scores: Scorecard = run.nouns[CANDIDATE.name]
    yield _Seen("as scored", scores.deployment.checkpoint_digest)


def _baselines(run: RunDirectory) -> Iterator[_Seen]:
    for stage in (SMOKE, SMOKE_DECLARED):
        smoke: SmokeReport | None = run.nouns.get(stage.name)
        if smoke is not None and smoke.baseline_digest is not None:
            yield _Seen(f"as smoked ({smoke.numerics})", smoke.baseline_digest)
    scores: Scorecard = run.nouns[BASELINE.name]
    yield _Seen("as scored", scores.deployment.checkpoint_digest)


def _refuse_different(what: str, seen: list[_Seen]) -> None:
    first = seen[0]
    for other in seen[1:]:
        if other.digest != first.digest:
            message = (
                f"the {what} {first.where} has the digest {first.digest:.12}, the one "
                f"{other.where} {other.digest:.12}: files were exchanged while the run was at "
                "work. Let nobody write there, and type the command again."
            )
            raise EvidenceError(message)


def _now_or_gone(folder: Path) -> str:
    try:
        return digest_folder(folder) if folder.is_dir() else "gone"
    except HarnessError:
        return "unreadable"
