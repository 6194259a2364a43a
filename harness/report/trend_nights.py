"""What the trend page says of each cell and night: one box, its sign, and the words behind it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from harness.artifacts import CellEnding, NightRow, Purpose
from harness.report.words import visible

NIGHTS_IN_BOXES = 28
"""Columns of the table of boxes; the plots go further back."""
NIGHTS_IN_PLOTS = 120

_SIGNS: dict[CellEnding, tuple[str, str]] = {
    CellEnding.GO: ("go", "GO"),
    CellEnding.NO_GO: ("no-go", "NO"),
    CellEnding.INCONCLUSIVE: ("inconclusive", "?"),
    CellEnding.INFRA_FAILED: ("infra", "INF"),
    CellEnding.BOTH_ARMS_FAILED: ("both", "A+B"),
    CellEnding.NO_BASELINE: ("unknown", "NB"),
    CellEnding.NOT_RUN: ("unknown", "NR"),
}
"""Class and sign of each ending; every sign differs, so that no colour is needed to tell them."""
NO_ROW = "no row"
_ABSENT = ("absent", "-")
_FAILED = frozenset({CellEnding.NO_GO, CellEnding.INFRA_FAILED, CellEnding.BOTH_ARMS_FAILED})
"""Endings that a sick machine can cause; no waived one, for its cause is known."""
_WORST_FIRST = (
    CellEnding.NO_GO,
    CellEnding.INFRA_FAILED,
    CellEnding.BOTH_ARMS_FAILED,
    CellEnding.NO_BASELINE,
    CellEnding.NOT_RUN,
    CellEnding.INCONCLUSIVE,
)


class Box(NamedTuple):
    """One cell in one night."""

    kind: str
    """CSS class."""
    sign: str
    marks: str
    """`w` for waived, `r` for retried."""
    day: str
    words: str
    """The same in words."""


class CellNights(NamedTuple):
    """All that is known of one cell."""

    name: str
    anchor: str
    """Where the page says more of it; made of a number, for a name may hold anything."""
    rows: tuple[NightRow, ...]
    boxes: tuple[Box, ...]
    latest: NightRow | None
    """What the last night of the ledger made of it; None where it has no row of that night."""

    @property
    def is_green(self) -> bool:
        """Return whether the last night was GO without anything being excused."""
        return self.latest is not None and self.latest.is_green and not is_waived(self.latest)


class Look(NamedTuple):
    """A cell that a person has to look at."""

    cell: CellNights
    kind: str
    word: str
    message: str


class HostShare(NamedTuple):
    """How many of a machine's runs failed, waived ones left out."""

    host: str
    num_failed: int
    num_runs: int


class Change(NamedTuple):
    """What a cell was made of or ran on that was otherwise the night before."""

    night: str
    what: str


def nights_of(rows: Iterable[NightRow]) -> tuple[str, ...]:
    """Return the names of the nights in the order of the rows, which is the ledger's."""
    return tuple(dict.fromkeys(row.night for row in rows))


def cells_of(rows: Sequence[NightRow], nights: Sequence[str]) -> tuple[CellNights, ...]:
    """Return each cell, in the order of names."""
    by_cell: dict[str, list[NightRow]] = {}
    for row in rows:
        by_cell.setdefault(row.cell, []).append(row)
    return tuple(
        _cell_of(name, f"cell-{number}", by_cell[name], nights)
        for number, name in enumerate(sorted(by_cell), start=1)
    )


def _cell_of(name: str, anchor: str, rows: list[NightRow], nights: Sequence[str]) -> CellNights:
    by_night = {night: [row for row in rows if row.night == night] for night in nights}
    ordered = tuple(row for night in nights for row in by_night[night])
    boxes = tuple(_box_of(night, by_night[night]) for night in nights[-NIGHTS_IN_BOXES:])
    latest = speaking(by_night[nights[-1]]) if nights else None
    return CellNights(name, anchor, ordered, boxes, latest)


def speaking(rows: Sequence[NightRow]) -> NightRow | None:
    """Return the run that speaks for a night: of the last attempt, as for the exit code.

    That it was not run counts only where nothing else does; a confirmation is about an alarm alone.
    """
    of_the_night = [row for row in rows if row.purpose is not Purpose.CONFIRMATION]
    ran = [row for row in of_the_night if row.ending is not CellEnding.NOT_RUN]
    last = max((row.attempt for row in ran or of_the_night), default=0)
    return next((row for row in reversed(ran or of_the_night) if row.attempt == last), None)


def is_waived(row: NightRow) -> bool:
    """Return whether a waiver held on the day on which the run ended, its last day included."""
    day = row.ended[:10] or row.night[:10]
    return row.waiver is not None and day <= row.waiver.expires.isoformat()


def _box_of(night: str, rows: Sequence[NightRow]) -> Box:
    row = speaking(rows)
    if row is None:
        return Box(*_ABSENT, "", short_night(night), f"{night}: {NO_ROW}")
    kind, sign = kind_and_sign(row)
    is_retried = row.purpose is Purpose.RETRY
    marks = ("w" if is_waived(row) else "") + ("r" if is_retried else "")
    words = f"{night}: {ending_word(row)}" + (", after a retry" if is_retried else "")
    return Box(kind, sign, marks, short_night(night), visible(words))


def kind_and_sign(row: NightRow) -> tuple[str, str]:
    """Return the class and sign of a run; a waived one is never green."""
    kind, sign = _SIGNS[row.ending]
    return ("waived" if is_waived(row) else kind), sign


def ending_word(row: NightRow | None) -> str:
    """Name how a run ended, and that it is waived."""
    if row is None:
        return NO_ROW
    return f"{row.ending} (waived)" if is_waived(row) else str(row.ending)


def ending_kind(row: NightRow | None) -> str:
    """Return the CSS class of a run's ending."""
    return _ABSENT[0] if row is None else kind_and_sign(row)[0]


def short_night(night: str) -> str:
    """Return a night as a column's head: month and day of a date, the end of another name."""
    return visible(night)[-5:]


def looks_of(cells: Iterable[CellNights]) -> list[Look]:
    """Return the cells that are not green in the last night, the worst first, waived ones last."""
    found = [_look_of(cell) for cell in cells if not cell.is_green]
    return sorted(found, key=lambda look: _rank(look.cell.latest))


def _look_of(cell: CellNights) -> Look:
    row = cell.latest
    if row is None:
        last = cell.rows[-1].night
        return Look(cell, _ABSENT[0], NO_ROW, f"nothing is recorded since {last}")
    message = row.message or ", ".join(row.reason_codes)
    waiver = row.waiver
    if waiver is not None:
        what = "waived" if is_waived(row) else "no longer waived: it was"
        until = f"{what} by {waiver.approver} until {waiver.expires}: {waiver.reason}"
        message = f"{until}. {message}"
    return Look(cell, ending_kind(row), ending_word(row), message)


def _rank(row: NightRow | None) -> tuple[bool, int]:
    if row is None:
        return False, _WORST_FIRST.index(CellEnding.NOT_RUN)
    is_known = row.ending in _WORST_FIRST
    return is_waived(row), _WORST_FIRST.index(row.ending) if is_known else len(_WORST_FIRST)


def count_endings(cells: Iterable[CellNights]) -> dict[str, int]:
    """Return how many cells ended how in the last night, in words."""
    counted = Counter(ending_word(cell.latest) for cell in cells)
    return dict(sorted(counted.items(), key=lambda pair: (pair[0] != CellEnding.GO, pair[0])))


def hosts_of(rows: Iterable[NightRow]) -> list[HostShare]:
    """Return each machine with how many of its runs failed, the most striking first.

    Striking is what has more failures than its share of the runs lets expect: the machine that runs
    most has most failures too.
    """
    runs, failed = Counter[str](), Counter[str]()
    for row in rows:
        if row.host:
            runs[row.host] += 1
            failed[row.host] += row.ending in _FAILED and not is_waived(row)
    expected = failed.total() / max(runs.total(), 1)
    shares = [HostShare(host, failed[host], runs[host]) for host in runs]
    return sorted(shares, key=lambda s: (expected * s.num_runs - s.num_failed, s.host))


def changes_of(rows: Sequence[NightRow]) -> list[Change]:
    """Return what changed from each counted run of a cell to the next, the newest first."""
    counted = [row for row in rows if row.is_counted and row.host]
    found = []
    for before, after in pairwise(counted):
        what = [*_named_changes(before, after), *_changed_digests(before, after)]
        if what:
            found.append(Change(after.night, "; ".join(what)))
    return found[::-1]


def _named_changes(before: NightRow, after: NightRow) -> list[str]:
    pairs = (
        ("engine", before.engine, after.engine),
        ("gpu", before.gpu, after.gpu),
        ("host", before.host, after.host),
        ("harness", before.harness, after.harness),
    )
    return [f"{name} {old} became {new}" for name, old, new in pairs if old and new and old != new]


def _changed_digests(before: NightRow, after: NightRow) -> list[str]:
    both = sorted(before.digests.keys() & after.digests.keys())
    names = [name for name in both if before.digests[name] != after.digests[name]]
    return [f"other bytes: {', '.join(names)}"] if names else []
