"""Whether failures pile up on one host: said only where it is more than chance would make.

Of N runs on several hosts F failed. Had the host nothing to do with it, its n runs would be any n
of the N, and the number of failures among them hypergeometric. A host is named if so many failures
or more had a chance of 1 % at most, times the number of hosts, for each of them could have been it.

Runs of one cell in one night count once on each host, however often it was tried there. A failure
by a verdict counts once for each cell and host over all nights: a checkpoint that is bad stays bad,
wherever it runs.
"""

from collections import Counter
from collections.abc import Iterable
from math import comb
from typing import NamedTuple

from harness.artifacts import CellEnding, NightRow, Purpose

LEVEL = 0.01
_FEWEST = 2
_OF_A_VERDICT = {CellEnding.NO_GO, CellEnding.INCONCLUSIVE}
_Key = tuple[str, str, str]
"""Cell, night (empty for a failure by a verdict), host."""


class HostFailures(NamedTuple):
    """A host on which failures pile up."""

    host: str
    num_failed: int
    """On this host."""
    num_ran: int
    all_failed: int
    """On all hosts."""
    all_ran: int
    chance: float
    """Of so many on one host or another, had the host nothing to do with it."""

    @property
    def message(self) -> str:
        """Return it in words."""
        return (
            f"{self.num_failed} of {self.all_failed} failures on host {self.host}, which ran "
            f"{self.num_ran} of {self.all_ran} cells (by chance in {self.chance:.2g} of cases)"
        )


def sick_hosts(rows: Iterable[NightRow]) -> tuple[HostFailures, ...]:
    """Return the hosts on which the failures of these rows pile up, the likeliest first."""
    units: dict[_Key, bool] = {}
    for row in rows:
        if row.host and row.ending is not CellEnding.NOT_RUN and _is_chosen(row):
            by_verdict = row.ending in _OF_A_VERDICT
            key = row.cell, "" if by_verdict else row.night, row.host
            units[key] = units.get(key, False) or not row.is_green
    ran = Counter(host for *_, host in units)
    failed = Counter(host for (*_, host), is_failed in units.items() if is_failed)
    found = []
    for host, number in failed.items():
        tail = _at_least(number, ran[host], failed.total(), ran.total())
        chance = min(1.0, tail * len(ran))
        if number >= _FEWEST and len(ran) > 1 and chance <= LEVEL:
            counts = number, ran[host], failed.total(), ran.total()
            found.append(HostFailures(host, *counts, chance))
    return tuple(sorted(found, key=lambda one: (one.chance, one.host)))


def _is_chosen(row: NightRow) -> bool:
    """Return whether chance decided where it ran: a confirmation is asked where an alarm was."""
    return row.purpose is not Purpose.CONFIRMATION


def _at_least(failed: int, ran: int, all_failed: int, all_ran: int) -> float:
    """Return the chance of `failed` or more failures on a host that ran `ran` of all."""
    most = min(ran, all_failed)
    ways = sum(
        comb(all_failed, k) * comb(all_ran - all_failed, ran - k) for k in range(failed, most + 1)
    )
    return ways / comb(all_ran, ran)
