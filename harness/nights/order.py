"""In which order the rows of many machines are read, whatever their clocks said.

Rows of one origin keep the order in which they were written. Rows of several are put side by side
by night; and a night that is older than one which the same origin has written before, as after a
clock was set back, is read as that later one. Within a night the place counts that each row got
when it was written: behind all rows that were known then.
"""

import re
from collections.abc import Iterable

from harness.nights.lines import Line

_NUMBER = re.compile(r"(\d+)")
NightKey = tuple[tuple[int, int, str], ...]


def night_key(night: str) -> NightKey:
    """Return what nights are sorted by: numbers in them count as numbers."""
    parts = _NUMBER.split(night)
    return tuple((int(p.isdigit()), int(p) if p.isdigit() else 0, p) for p in parts if p)


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Return the lines in the order of their rows, each row once."""
    unique: dict[str, Line] = {}
    for line in lines:
        known = unique.get(line.id)
        unique[line.id] = line if known is None else min(known, line, key=_within_origin)
    keyed: list[tuple[NightKey, int, str, Line]] = []
    latest: dict[str, NightKey] = {}
    for line in sorted(unique.values(), key=_within_origin):
        night = night_key(str(line.row.get("night", "")))
        latest[line.origin] = max(latest.get(line.origin, night), night)
        keyed.append((latest[line.origin], line.order, line.id, line))
    return [line for *_, line in sorted(keyed, key=lambda one: one[:3])]


def _within_origin(line: Line) -> tuple[str, int, str]:
    return line.origin, line.order, line.id
