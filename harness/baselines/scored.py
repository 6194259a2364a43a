"""A baseline that was scored before, as `--baseline` names it: a run, its arm, or a bundle.

Before anything runs it is held against what this run compares with. Whatever would change an
answer must be the same; the hardware may differ, because kernels do, and the verdict says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import (
    Arm,
    BaselineEntry,
    BaselineInputs,
    Change,
    Scorecard,
    SmokeSet,
    digest_of,
    made_from,
)
from harness.baselines.bundle import is_bundle, unpacked
from harness.baselines.entries import PROBE_FILE, SMOKE_SET, check_entry
from harness.baselines.store import AGAIN, SCORECARD_FILE, copy_into
from harness.doors import expanded
from harness.errors import BaselineError, ReasonCode, UsageError
from harness.score import read_arm

_MAY_DIFFER = {"the engine's device", "the engine's numerics", "the engine's tensor parallel size"}
"""Of a baseline given by hand: hardware, and what is no matter of an unquantized model."""
_IN_PROCESS = {"the version of torch", "the version of safetensors"}
"""They compute only where the engine is in this process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredArm:
    """A baseline that was scored before."""

    path: Path
    """Folder with its scorecard.json and samples, or a bundle."""
    scorecard: Scorecard
    entry: BaselineEntry
    """What it was made from."""
    digest: str
    """Of the scores, those of the second run included."""
    smoke_digest: str | None = None
    """Of the smoke set that it answered; None where it was scored without one."""

    @property
    def model_digest(self) -> str:
        """Return the digest of the model that was scored."""
        return self.entry.inputs.model_digest


def find_scored(named: str) -> ScoredArm | None:
    """Return the scored arm that `--baseline` names; None where it must be a model.

    Raises:
        UsageError: it names the scores of a candidate.
        BaselineError: it names a file that is no whole bundle, or scores that are no whole
            baseline's.
    """
    path = expanded(named)
    if is_bundle(path):
        with unpacked(path) as folder:
            return _scored(folder, path)
    for folder in (path / "baseline", path):
        if (folder / SCORECARD_FILE).is_file():
            return _scored(folder, folder)
    return None


def put_into(scored: Path, run_folder: Path, *, digest: str | None = None) -> None:
    """Copy a folder of scores, or what a bundle holds, into a run directory.

    Args:
        scored: the folder or the bundle.
        run_folder: where the scores are to lie.
        digest: of the scores, where they were looked at before.

    Raises:
        BaselineError: they are no whole baseline, or are not those that were looked at.
    """
    if is_bundle(scored):
        with unpacked(scored) as folder:
            copy_into(folder, run_folder)
    else:
        copy_into(scored, run_folder)
    found = digest_of_scores(run_folder, check_entry(run_folder, named=str(scored)))
    if digest not in (None, found):
        message = f"'{scored}' was changed since the run began: {digest:.12} became {found:.12}."
        raise BaselineError(message, reason=ReasonCode.EVIDENCE_CHANGED)


def digest_of_scores(folder: Path, entry: BaselineEntry) -> str:
    """Return the digest of a baseline: of its scores, those of its second run, its ingredients."""
    again = read_rerun(folder)
    return digest_of(read_arm(folder).scorecard, again.scorecard if again else None, entry)


def read_rerun(folder: Path) -> Arm | None:
    """Return the second run of the baseline in `folder`; None where it was run once."""
    again = folder / AGAIN
    return read_arm(again) if (again / SCORECARD_FILE).is_file() else None


def refuse_stale(
    scored: ScoredArm,
    now: BaselineInputs,
    *,
    knows_model: bool = True,
    smoke: SmokeSet | None = None,
) -> None:
    """Refuse a baseline that was made from something else than this run compares with.

    Args:
        scored: the baseline.
        now: what it would be made from now.
        knows_model: whether `now` names the model that the baseline must be of.
        smoke: what the smoke run asks. Answers to another set are as stale as other scores;
            scores without any are not refused, the verdict says that there was no smoke run.

    Raises:
        BaselineError: with every ingredient that changed, its old and its new value.
    """
    changes = [*_changes_that_matter(scored, now), *_change_of_smoke(scored, smoke)]
    found = [str(c) for c in changes if knows_model or c.what != "the model's digest"]
    if found:
        message = (
            f"the baseline '{scored.path}' does not fit this run: {'; '.join(found)}. "
            "Measure it again with 'harness baseline add', or name the model as the baseline."
        )
        raise BaselineError(message, reason=ReasonCode.STALE_BASELINE)


def _changes_that_matter(scored: ScoredArm, now: BaselineInputs) -> Iterator[Change]:
    ignored = set(_MAY_DIFFER) if now.engine.name == "reference" else _MAY_DIFFER | _IN_PROCESS
    for change in scored.entry.inputs.changes(now):
        if change.what not in ignored:
            yield change


def _change_of_smoke(scored: ScoredArm, smoke: SmokeSet | None) -> Iterator[Change]:
    if smoke is not None and scored.smoke_digest not in (None, smoke.digest):
        yield Change("the smoke set", f"{scored.smoke_digest:.12}", f"{smoke.digest:.12}")


def _scored(folder: Path, path: Path) -> ScoredArm:
    card = read_arm(folder).scorecard
    if card.arm != "baseline":
        message = (
            f"'{path}' holds the scores of a {card.arm}. Give --baseline a model, "
            "a run, a bundle, or the folder of a baseline's scores."
        )
        raise UsageError(message)
    entry = check_entry(folder, named=str(path))
    return ScoredArm(
        path=path,
        scorecard=card,
        entry=entry,
        digest=digest_of_scores(folder, entry),
        smoke_digest=(made_from(folder / PROBE_FILE) or {}).get(SMOKE_SET),
    )
