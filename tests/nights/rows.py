"""Rows of nights as small as they can be."""

from dataclasses import replace

from harness.artifacts import AgainstAnchor, CellEnding, NightRow, Purpose
from harness.gate.mcnemar import p_worse


def night_row(
    cell: str, night: str, ending: CellEnding = CellEnding.GO, /, **changes: object
) -> NightRow:
    row = NightRow(
        cell=cell,
        night=night,
        attempt=1,
        purpose=Purpose.REGULAR,
        started="2031-01-01T01:00:00Z",
        ended="2031-01-01T02:00:00Z",
        ending=ending,
        exit_code=0,
        reason_codes=(),
        message="",
        digests={},
        host="node",
        gpu="cpu",
        harness="harness 0",
        engine="reference 0",
        run_dir="",
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # a test's own fields


def beside(what: str = "add", /, *, lost: int, won: int = 0, **changes: object) -> AgainstAnchor:
    """Return a night of 1,000 items beside an anchor whose reruns never flipped."""
    one = AgainstAnchor(
        anchor="a" * 64,
        what=what,
        difference=(won - lost) / 1000,
        noise=0.0014,
        spread=(lost + won) ** 0.5 / 1000,
        num_items=1000,
        num_lost=lost,
        num_won=won,
        p_value=p_worse(lost, won),
    )
    return replace(one, **changes)  # type: ignore[arg-type]  # a test's own fields


def measured(what: str, difference: float) -> AgainstAnchor:
    return AgainstAnchor(anchor="a" * 64, what=what, difference=difference, noise=None)


def series(*losses: int, cell: str = "a", **changes: object) -> list[NightRow]:
    """Return nights of one cell that lost so many items against the anchor."""
    return [
        night_row(cell, f"2031-01-{night:02}", against=(beside(lost=lost),), **changes)
        for night, lost in enumerate(losses, start=1)
    ]
