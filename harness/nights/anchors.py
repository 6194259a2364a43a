"""A cell's anchor: what it answered in its last signed-off run, kept beside the ledger.

Scores and samples are copied, so that a night can be compared with it, item by item, when the run
directory is long gone. The comparison with yesterday is not made anywhere: what is lost slowly is
lost beside the anchor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import doors
from harness.artifacts import (
    Arm,
    Decision,
    RunRecord,
    Suite,
    digest_of,
    load,
    save,
    write_atomically,
)
from harness.baselines import read_rerun
from harness.errors import RunDirectoryError
from harness.gate import count_flips
from harness.nights.measures import measures_of
from harness.runs import plain_name, read_run
from harness.score import read_arm
from harness.stages import BASELINE_FOLDER, CANDIDATE

FOLDER = "anchors"
_FILE = "anchor.json"
_ADVICE = "Sign the cell off again."


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """The last signed-off run of a cell."""

    id: str
    """Digest of its scores, with the digest of the judge's record."""
    cell: str
    suite: Suite
    flip_rates: Mapping[str, float]
    """Share of items that flip between two runs of the same bytes (A/A), by task."""
    measures: Mapping[str, float]
    gpu: str
    engine: str
    checkpoint: str
    """Digest of the files that were judged."""


def set_anchor(cell: str, run_dir: Path, folder: Path) -> Anchor:
    """Make a run the anchor of a cell.

    Args:
        cell: its name in the matrix.
        run_dir: of a run that ended GO.
        folder: of the ledger.

    Raises:
        RunDirectoryError: it did not end GO, or its files were changed.
    """
    record = read_run(run_dir)
    verdict, card = record.verdict, record.candidate
    if verdict is None or verdict.decision is not Decision.GO or card is None:
        ended = "no verdict" if verdict is None else verdict.title
        message = (
            f"'{run_dir}' ended with {ended}, and an anchor is a run that was signed off. Name one "
            "that ended GO."
        )
        raise RunDirectoryError(message)
    arm = read_arm(run_dir)
    anchor = Anchor(
        id=digest_of(arm.scorecard, verdict.checkpoint_digest),
        cell=cell,
        suite=record.recipe.suite,
        flip_rates=_flip_rates(record, run_dir),
        measures=dict(measures_of(record)),
        gpu=card.deployment.device,
        engine=f"{card.deployment.engine} {card.deployment.version}",
        checkpoint=verdict.checkpoint_digest or "",
    )
    place = _place(cell, folder)
    _copy(arm, run_dir, place / anchor.id[:16])
    save(anchor, place / _FILE)
    return anchor


def anchor_of(cell: str, folder: Path) -> Anchor | None:
    """Return the anchor of a cell; None where nothing was signed off yet.

    Raises:
        RunDirectoryError: it was changed.
    """
    path = _place(cell, folder) / _FILE
    return load(Anchor, path, advice=_ADVICE) if path.exists() else None


def answers_of(anchor: Anchor, folder: Path) -> Arm:
    """Return what the anchor answered.

    Raises:
        RunDirectoryError: its files were changed or are gone.
    """
    return read_arm(_place(anchor.cell, folder) / anchor.id[:16])


def _place(cell: str, folder: Path) -> Path:
    return folder / FOLDER / f"{plain_name(cell)}-{digest_of(cell)[:8]}"


def _copy(arm: Arm, run_dir: Path, into: Path) -> None:
    doors.check_folder(into)
    for score in arm.scorecard.tasks:
        (into / score.samples).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(into / score.samples, (run_dir / score.samples).read_bytes())
    into.mkdir(parents=True, exist_ok=True)
    write_atomically(into / CANDIDATE.file, (run_dir / CANDIDATE.file).read_bytes())


def _flip_rates(record: RunRecord, run_dir: Path) -> Mapping[str, float]:
    """Return how often items flip by chance: by the A/A on record, else as the suite states.

    A rerun without a flip does not show that there are none: two are added to what was seen, and
    four items.
    """
    base = run_dir / BASELINE_FOLDER
    rerun = read_rerun(base)
    flips = count_flips(read_arm(base), rerun) if rerun else {}
    return {
        spec.name: (flips[spec.name].num_flips + 2) / (flips[spec.name].num_items + 4)
        if spec.name in flips
        else spec.flip_rate
        for spec in record.recipe.suite.tasks
    }
