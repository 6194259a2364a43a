"""Rows of nights as small as they can be."""

from dataclasses import replace

from harness.artifacts import CellEnding, NightRow, Purpose


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
