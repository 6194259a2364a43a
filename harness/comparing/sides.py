"""What there is of one run, however it ended: read as far as it is whole, the rest is noted.

A run directory (of `e2e`, `gate` or `quantize`), the folder of one scored arm, or another tool's
records of one. Nothing is believed that was changed since harness wrote it; a file that is gone or
damaged takes only itself away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.arms import DEPLOYMENT_FILE
from harness.artifacts import (
    Arm,
    BaselineEntry,
    Deployment,
    Failure,
    MadeFrom,
    Scorecard,
    Surroundings,
    Trial,
    Verdict,
    load,
    made_from,
)
from harness.errors import HarnessError, RunDirectoryError, UsageError
from harness.evidence import changes_since_judged, folder_of
from harness.foreign import is_recorded
from harness.installed import read_surroundings
from harness.rundir import RECIPE_FILE, Stage, read_recipe
from harness.runs import FAILURE_FILE, PLAN_FILE
from harness.score import read_arm
from harness.score.arm import SCORECARD_FILE
from harness.stages import BASELINE, BASELINE_FOLDER, CANDIDATE, CHECKPOINT_FOLDER, JUDGE, STAGES

T = TypeVar("T")
_ENTRY_FILE = "entry.json"
_OLDER = "another version of harness wrote it: what that did not know stands at today's default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two runs."""

    place: Path
    recipe: Trial | None = None
    nouns: Mapping[str, Any] = field(default_factory=dict)
    """By stage; the arms stand apart."""
    made_from: Mapping[str, MadeFrom] = field(default_factory=dict)
    """By stage."""
    plan_digest: str | None = None
    candidate: Arm | None = None
    """Without samples where these are gone."""
    baseline: Arm | None = None
    entry: BaselineEntry | None = None
    deployment: Deployment | None = None
    failure: Failure | None = None
    surroundings: tuple[Surroundings, ...] = ()
    """More than one where it was resumed in others; empty where they are not on record."""
    folder: Path | None = None
    """Of the checkpoint, whether it is still there or not."""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """Return what the run ended with, if it came to that."""
        found: Verdict | None = self.nouns.get(JUDGE.name)
        return found

    @property
    def ending(self) -> str:
        """Return how it ended, in a few words."""
        if self.failure is not None:
            return f"failed in {self.failure.stage} ({self.failure.reason_code})"
        if self.verdict is not None:
            return self.verdict.title
        return "scored" if self.recipe is None else "not ended"


def is_side(path: Path) -> bool:
    """Return whether harness wrote a run or an arm there."""
    return (path / RECIPE_FILE).exists() or (path / SCORECARD_FILE).exists()


def read_side(path: Path) -> Side:
    """Read what there is in `path`.

    Raises:
        UsageError: it is neither a run directory nor a scored arm.
        RunDirectoryError: an arm that stands by itself is damaged, or was changed.
    """
    if (path / RECIPE_FILE).exists():
        return _read_run(path)
    if (path / SCORECARD_FILE).exists():
        arm = read_arm(path)
        return Side(place=path, candidate=arm, deployment=arm.scorecard.deployment)
    what = "no folder" if not path.is_dir() else "neither a run directory nor a scored arm"
    hint = "" if not is_recorded(path) else " Records of another tool are compared with each other."
    message = f"'{path}' is {what}. Name a folder that harness wrote.{hint}"
    raise UsageError(message)


def _read_run(path: Path) -> Side:
    notes: list[str] = []
    recipe = _read_recipe(path, notes)
    is_older = bool(notes)
    nouns, froms = _nouns(path, notes)
    candidate = _arm(path, nouns, CANDIDATE, notes)
    baseline = _arm(path, nouns, BASELINE, notes)
    failure = _optional(path / FAILURE_FILE, notes, lambda file: load(Failure, file))
    if nouns.get(JUDGE.name) is not None and not is_older:
        changed = _tried(lambda: changes_since_judged(path), notes) or []
        notes += [f"changed since it was judged: {change}" for change in changed]
    deployment = candidate.scorecard.deployment if candidate else None
    if deployment is None:
        file = path / DEPLOYMENT_FILE
        deployment = _optional(file, notes, lambda found: load(Deployment, found))
    return Side(
        place=path,
        recipe=recipe,
        nouns=nouns,
        made_from=froms,
        plan_digest=_plan_digest(path, froms),
        candidate=candidate,
        baseline=baseline,
        entry=_optional(
            path / BASELINE_FOLDER / _ENTRY_FILE, notes, lambda file: load(BaselineEntry, file)
        ),
        deployment=deployment,
        failure=failure,
        surroundings=_tried(lambda: read_surroundings(path), notes) or (),
        folder=_folder(path, recipe, deployment),
        notes=tuple(notes),
    )


def _read_recipe(path: Path, notes: list[str]) -> Trial | None:
    try:
        return read_recipe(path)
    except RunDirectoryError as error:
        recipe = _tried(lambda: read_recipe(path, older=True), [])
        notes.append(_OLDER if recipe is not None else str(error))
        return recipe


def _nouns(path: Path, notes: list[str]) -> tuple[dict[str, Any], dict[str, MadeFrom]]:
    """Read each stage's noun; what an older run left that the verdict does not stand on is none."""
    judged = _tried(lambda: made_from(path / JUDGE.file), notes)
    nouns: dict[str, Any] = {}
    froms: dict[str, MadeFrom] = {}
    for stage in STAGES:
        is_part = judged is None or stage is JUDGE or stage.name in judged
        if is_part and (path / stage.file).exists():
            _read_noun(stage, path, notes, nouns)
            if stage.name in nouns:
                froms[stage.name] = made_from(path / stage.file) or {}
    return nouns, froms


def _read_noun(stage: Stage[Any], path: Path, notes: list[str], nouns: dict[str, Any]) -> None:
    noun = _tried(lambda: stage.load(path), notes)
    if noun is not None:
        nouns[stage.name] = noun


def _arm(path: Path, nouns: dict[str, Any], stage: Stage[Any], notes: list[str]) -> Arm | None:
    card: Scorecard | None = nouns.pop(stage.name, None)
    if card is None:
        return None
    whole = _tried(lambda: read_arm((path / stage.file).parent), notes)
    return whole or Arm(scorecard=card, samples={})


def _folder(path: Path, recipe: Trial | None, served: Deployment | None) -> Path | None:
    """Return the checkpoint's folder; where no recipe says it, the one that was served."""
    if recipe is not None:
        return folder_of(path, recipe)
    own = path / CHECKPOINT_FOLDER
    return own if own.is_dir() or served is None else Path(served.model)


def _plan_digest(path: Path, froms: Mapping[str, MadeFrom]) -> str | None:
    """Return what the stages say that the plan was; plan.json alone is of no stage yet."""
    for made in froms.values():
        if "plan" in made:
            return made["plan"]
    return _tried(lambda: _digest_in(path / PLAN_FILE), [])


def _digest_in(file: Path) -> str | None:
    from harness.artifacts import QuantPlan  # noqa: PLC0415  most runs need no plan read

    return load(QuantPlan, file).digest if file.exists() else None


def _optional(file: Path, notes: list[str], read: Callable[[Path], T]) -> T | None:
    return _tried(lambda: read(file), notes) if file.exists() else None


def _tried(read: Callable[[], T], notes: list[str]) -> T | None:
    """Return what is read, or None with a note of why it cannot be."""
    try:
        return read()
    except HarnessError as error:
        notes.append(str(error))
    except OSError as error:
        notes.append(f"'{error.filename}' cannot be read: {error.strerror}")
    return None
