"""One night beside its cell's anchor: what the row keeps of it, and why where it keeps nothing."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import AgainstAnchor, RunRecord
from harness.errors import HarnessError
from harness.gate import ALL_TASKS, Beside, beside
from harness.nights.anchors import Anchor, anchor_of, answers_of
from harness.nights.measures import WORSE, measures_of
from harness.score import read_arm


class Compared(NamedTuple):
    """A night beside its anchor."""

    against: tuple[AgainstAnchor, ...]
    not_compared: str


def compare_with_anchor(
    record: RunRecord, run_dir: Path, cell: str, folder: Path | None
) -> Compared:
    """Compare a run with the anchor of its cell, item by item.

    Args:
        record: of the run.
        run_dir: of the run.
        cell: its name in the matrix.
        folder: of the ledger; None where there is none.
    """
    if record.candidate is None:
        return Compared((), "nothing was scored")
    try:
        anchor = anchor_of(cell, folder) if folder is not None else None
        if folder is None or anchor is None:
            return Compared((), "no run of the cell was signed off yet")
        if record.candidate.suite_digest != anchor.suite.digest:
            return Compared((), "the suite is another than the anchor's: sign the cell off again")
        found = beside(anchor.suite, answers_of(anchor, folder), read_arm(run_dir))
    except HarnessError as error:
        return Compared((), str(error))
    tasks = list(_tasks(anchor, found))
    lacking = [spec.name for spec in anchor.suite.tasks if spec.name not in found]
    why = f"no answer to {', '.join(lacking)}" if lacking else ""
    return Compared((*tasks, *_measures(anchor, record)), why)


def _tasks(anchor: Anchor, found: Mapping[str, Beside]) -> Iterator[AgainstAnchor]:
    for what, one in found.items():
        yield AgainstAnchor(
            anchor=anchor.id,
            what=what,
            difference=one.difference,
            noise=_noise(anchor, what, found),
            spread=one.spread,
            num_items=one.num_items,
            num_lost=one.num_lost,
            num_won=one.num_won,
            p_value=one.p_value,
            num_tests=len(found),
        )


def _noise(anchor: Anchor, what: str, found: Mapping[str, Beside]) -> float | None:
    """Return the standard deviation of a difference between two runs of the same bytes.

    Of n items of which a share f flips, as often one way as the other, it is sqrt(f / n).
    """
    names = [n for n in found if n != ALL_TASKS] if what == ALL_TASKS else [what]
    specs = {s.name: s for s in anchor.suite.tasks if s.relative_margin is None}
    known = [name for name in names if name in anchor.flip_rates and name in specs]
    flips = math.fsum(anchor.flip_rates[name] * found[name].num_items for name in known)
    items = sum(found[name].num_items for name in known)
    return math.sqrt(flips) / items if items else None


def _measures(anchor: Anchor, record: RunRecord) -> Iterator[AgainstAnchor]:
    """Yield the measures of which a ratio says something: those of the same kind of machine."""
    now = dict(measures_of(record))
    is_alike = record.candidate is not None and record.candidate.deployment.device == anchor.gpu
    for what, sign in WORSE.items():
        before, after = anchor.measures.get(what, 0.0), now.get(what, 0.0)
        if before > 0 and after > 0 and (is_alike or what == "answer_tokens"):
            change = math.log(after / before)
            difference = -sign * change
            yield AgainstAnchor(anchor=anchor.id, what=what, difference=difference, noise=None)
