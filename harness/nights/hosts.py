"""Whether failures pile up on one host: said only where it is more than chance would make.

Of N runs on several hosts F failed. Had the host nothing to do with it, its n runs would be any n
of the N, and the number of failures among them hypergeometric. A host is named if so many failures
or more had a chance of 1 % at most, times the number of hosts, for each of them could have been it.

What a verdict says and what a machine does are tested apart, and the chance counts twice for that:
a few bad checkpoints, which fail wherever they run, would hide a machine that loses half its runs.

Runs of one cell in one night count once on each host, however often it was tried there. A failure
by a verdict counts once for each cell and host over all nights: a checkpoint that is bad stays bad,
wherever it runs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from math import comb
from typing import NamedTuple

from harness.artifacts import CellEnding, NightRow, Purpose

LEVEL = 0.01
_FEWEST = 2
_NUM_KINDS = 2
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
    ran = [row for row in rows if row.host and row.ending is not CellEnding.NOT_RUN]
    chosen = [row for row in ran if _is_chosen(row)]
    found: dict[str, HostFailures] = {}
    for by_verdict in (False, True):
        for one in _piled_up(chosen, by_verdict=by_verdict):
            if one.host not in found or one.chance < found[one.host].chance:
                found[one.host] = one
    return tuple(sorted(found.values(), key=lambda one: (one.chance, one.host)))


def _piled_up(rows: Iterable[NightRow], *, by_verdict: bool) -> Iterator[HostFailures]:
    """Yield the hosts that have too many failures of one kind; others count as runs without."""
    units: dict[_Key, bool] = {}
    for row in rows:
        is_failed = not row.is_green and (row.ending in _OF_A_VERDICT) is by_verdict
        key = row.cell, "" if is_failed and by_verdict else row.night, row.host
        units[key] = units.get(key, False) or is_failed
    ran = Counter(host for *_, host in units)
    failed = Counter(host for (*_, host), is_failed in units.items() if is_failed)
    for host, number in failed.items():
        counts = number, ran[host], failed.total(), ran.total()
        chance = min(1.0, _at_least(*counts) * len(ran) * _NUM_KINDS)
        if number >= _FEWEST and len(ran) > 1 and chance <= LEVEL:
            yield HostFailures(host, *counts, chance)


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
