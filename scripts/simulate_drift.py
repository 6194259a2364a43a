"""How often nights raise an alarm where nothing is lost, and how late where something is.

    python -m scripts.simulate_drift             # print the tables; exit 1 if a promise is broken
    python -m scripts.simulate_drift --record    # and add their worst rows to the ledger

A row is a cell of one task over 90 nights. Of its items a share answers by chance anew each night
(A/A: the share that flips between two runs), another share changed once after the anchor and stays
changed, either way as often: a new kernel that rounds otherwise. Beside that nothing is lost, or
0.3 points more every night, or some points at once. Nights are judged by harness.nights.alarms
itself, each test alone and both together; the first alarm is run again once, on the same host.

Promised is, of one series (a task, or all tasks) in 90 nights,

- a quiet cell raises a drift at most 2 times in 100, and is told as real at most 3 times in 100;
- 0.3 points a night are found within three weeks where 1,000 items are asked, 9 times in 10;
- five points at once are found in the first night where 1,000 items are asked, 9 times in 10,
  unless one item in twenty flips by chance.

A measure (speed, memory, load time, length) is a logarithm of a ratio with normal noise of 2 %.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import median
from typing import NamedTuple

import numpy as np

from harness.artifacts import (
    AgainstAnchor,
    AlarmCause,
    AlarmKind,
    CellEnding,
    NightRow,
    Purpose,
)
from harness.gate.mcnemar import p_worse
from harness.nights import alarms
from scripts import ledger

COMMAND = "python -m scripts.simulate_drift --record"
NIGHTS = 90
QUIET_DRAWS, LOSS_DRAWS = 1_000, 200
SEED = 21
MOST_DRIFTS, MOST_TOLD = 0.02, 0.03
WITHIN, SURE = 21, 0.9
SLOW, SUDDEN = 0.003, 0.05
MANY_ITEMS, MUCH_NOISE = 1_000, 0.05
MEASURE_NOISE = 0.02
HEAD = (
    "| items | flips by chance | changed once | lost | a loss proven | a drift | either | told as "
    "real | night of the first alarm: median | of 9 in 10 |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
_p_worse = lru_cache(maxsize=None)(p_worse)


class Row(NamedTuple):
    """What is simulated."""

    items: int
    flips: float
    """Share that flips between two runs of the same bytes."""
    changed: float
    """Share that changed once."""
    slow: float = 0.0
    """Lost every night, as a fraction of 1."""
    sudden: float = 0.0
    """Lost in the first night."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is lost."""
        return not self.slow and not self.sudden


class Cell:
    """One cell with an anchor, of which nights can be drawn."""

    def __init__(self, row: Row, draws: np.random.Generator) -> None:
        self.row, self.draws = row, draws
        self.unstable = int(draws.binomial(row.items, 2 * row.flips))
        self.anchor = draws.random(self.unstable) < 0.5  # noqa: PLR2004  right or wrong
        stable = row.items - self.unstable
        changed = int(draws.binomial(stable, row.changed))
        self.lost_once = int(draws.binomial(changed, 0.5))
        self.won_once = changed - self.lost_once
        rerun = int(draws.binomial(row.items, row.flips))
        self.noise = math.sqrt((rerun + 2) / (row.items + 4) / row.items)

    def night(self, number: int) -> AgainstAnchor:
        """Draw the night with this number, from 1."""
        now = self.draws.random(self.unstable) < 0.5  # noqa: PLR2004
        items = self.row.items
        loss = items * (self.row.slow * number + self.row.sudden)
        lost = int((self.anchor & ~now).sum()) + self.lost_once
        lost += int(loss) + int(self.draws.random() < loss % 1)
        won = int((~self.anchor & now).sum()) + self.won_once
        lost = min(lost, items - won)
        return AgainstAnchor(
            anchor="anchor",
            what="task",
            difference=(won - lost) / items,
            noise=self.noise,
            spread=math.sqrt(lost + won) / items,
            num_items=items,
            num_lost=lost,
            num_won=won,
            p_value=_p_worse(lost, won),
        )


class Ended(NamedTuple):
    """The first night in which a cell alarmed; None where none did."""

    loss: int | None
    drift: int | None
    told: bool
    """Whether the first alarm was seen again."""

    @property
    def first(self) -> int | None:
        """Return the night of the first alarm of either test."""
        return min((n for n in (self.loss, self.drift) if n is not None), default=None)


def rows() -> Iterator[Row]:
    """Yield quiet cells, cells that lose slowly, and cells that lose at once."""
    for items in (300, 1_000, 5_000):
        for flips in (0.0, 0.01, 0.05):
            for changed in (0.0, 0.03):
                yield Row(items, flips, changed)
            yield Row(items, flips, 0.0, slow=SLOW)
            for sudden in (0.01, 0.02, SUDDEN):
                yield Row(items, flips, 0.0, sudden=sudden)


def run_of(row: Row, draws: np.random.Generator, nights: int = NIGHTS) -> Ended:
    """Draw one cell over so many nights."""
    cell = Cell(row, draws)
    each = [cell.night(number) for number in range(1, nights + 1)]
    lone = [_row(number, one) for number, one in enumerate(each, start=1)]
    unproven = [_row(number, _without_p(one)) for number, one in enumerate(each, start=1)]
    loss, drift = _first(lone, AlarmKind.LOSS), _first(unproven, AlarmKind.DRIFT)
    ended = Ended(loss, drift, told=False)
    if ended.first is None:
        return ended
    rerun = _row(ended.first, cell.night(ended.first), Purpose.CONFIRMATION)
    found = alarms([*lone[: ended.first], rerun])
    return ended._replace(told=any(a.cause is AlarmCause.REAL for a in found))


def _without_p(one: AgainstAnchor) -> AgainstAnchor:
    values = {name: getattr(one, name) for name in AgainstAnchor.__dataclass_fields__}
    return AgainstAnchor(**{**values, "p_value": None})


def _first(nights: Sequence[NightRow], kind: AlarmKind) -> int | None:
    return next((int(a.night) for a in alarms(nights) if a.kind is kind), None)


def _row(number: int, one: AgainstAnchor, purpose: Purpose = Purpose.REGULAR) -> NightRow:
    measures = {one.what: math.exp(one.difference)} if one.what != "task" else {}
    return NightRow(
        cell="cell",
        night=f"{number:03}",
        attempt=1 if purpose is Purpose.REGULAR else 2,
        purpose=purpose,
        started="",
        ended="",
        ending=CellEnding.GO,
        exit_code=0,
        reason_codes=(),
        message="",
        digests={},
        host="host",
        gpu="gpu",
        harness="",
        engine="",
        run_dir="",
        measures=measures,
        against=(one,),
    )


class Rates(NamedTuple):
    """Over all cells of a row."""

    loss: float
    drift: float
    either: float
    told: float
    median: float | None
    most: float | None
    """Night by which nine in ten of all cells have alarmed; None where fewer ever do."""


def simulate(row: Row, *, seed: int, num_draws: int | None = None) -> Rates:
    """Draw many cells of a row."""
    number = num_draws or (QUIET_DRAWS if row.is_quiet else LOSS_DRAWS)
    draws = np.random.default_rng([SEED, seed])
    ended = [run_of(row, draws) for _ in range(number)]
    firsts = sorted(e.first for e in ended if e.first is not None)
    enough = math.ceil(SURE * number)
    return Rates(
        loss=sum(e.loss is not None for e in ended) / number,
        drift=sum(e.drift is not None for e in ended) / number,
        either=len(firsts) / number,
        told=sum(e.told for e in ended) / number,
        median=median(firsts) if firsts else None,
        most=firsts[enough - 1] if len(firsts) >= enough else None,
    )


def simulate_measure(slow: float, *, seed: int, num_draws: int = LOSS_DRAWS) -> Rates:
    """Draw a speed that falls by a share every night, from the eleventh on."""
    draws = np.random.default_rng([SEED, seed])
    firsts = []
    for _ in range(num_draws):
        anchor = draws.normal(0, MEASURE_NOISE)
        values = draws.normal(0, MEASURE_NOISE, size=NIGHTS)
        values -= slow * np.clip(np.arange(NIGHTS) - 9, 0, None)
        nights = [
            _row(n, AgainstAnchor(anchor="anchor", what="tokens_per_s", difference=d, noise=None))
            for n, d in enumerate((values - anchor).tolist(), start=1)
        ]
        firsts.append(_first(nights, AlarmKind.DRIFT))
    found = sorted(n for n in firsts if n is not None)
    enough = math.ceil(SURE * num_draws)
    share = len(found) / num_draws
    most = found[enough - 1] if len(found) >= enough else None
    return Rates(0.0, share, share, 0.0, median(found) if found else None, most)


def breaks(row: Row, rates: Rates) -> bool:
    """Return whether a row breaks a promise."""
    if row.is_quiet:
        return rates.drift > MOST_DRIFTS or rates.told > MOST_TOLD
    if row.items < MANY_ITEMS:
        return False
    if row.slow:
        return rates.most is None or rates.most > WITHIN
    is_clear = row.sudden >= SUDDEN and row.flips < MUCH_NOISE
    return is_clear and (rates.most is None or rates.most > 1)


def main() -> int:
    """Print every row, then what is worst; fail if a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(HEAD)
    found = []
    for seed, row in enumerate(rows()):
        found.append((row, simulate(row, seed=seed)))
        print(_line(*found[-1]), flush=True)
    steady = simulate_measure(0.0, seed=1_000, num_draws=QUIET_DRAWS)
    falling = simulate_measure(0.005, seed=1_001)
    values = _worst(found)
    values["a steady measure with 2 % noise, alarms in 90 nights"] = f"{steady.drift:.1%}"
    values["the same falling by 0.5 % a night, nights until the alarm"] = (
        f"{_night(falling.median, 10)} in the middle, {_night(falling.most, 10)} for 9 in 10"
    )
    for name, value in values.items():
        print(f"{name}: {value}")
    if arguments.record:
        ledger.append("Alarms of quiet and of drifting cells", command=COMMAND, values=values)
    return int(any(breaks(*one) for one in found) or steady.drift > MOST_DRIFTS)


def _worst(found: Sequence[tuple[Row, Rates]]) -> dict[str, str]:
    quiet = [(row, rates) for row, rates in found if row.is_quiet]
    values = {
        "a quiet series raises a drift in 90 nights": f"{max(r.drift for _, r in quiet):.1%}",
        "it raises a loss in 90 nights": f"{max(r.loss for _, r in quiet):.1%}",
        "it is told as real in 90 nights, after one rerun": f"{max(r.told for _, r in quiet):.1%}",
        "rows that break a promise": str(sum(breaks(*one) for one in found)),
    }
    for row, rates in found:
        if row.slow:
            name = f"0.3 points a night, {row.items} items, {row.flips:.0%} flips: night"
            values[name] = f"{_night(rates.median)} in the middle, {_night(rates.most)} for 9 in 10"
    return values


def _night(night: float | None, after: int = 0) -> str:
    return "never" if night is None else f"{night - after:g}"


def _line(row: Row, rates: Rates) -> str:
    lost = f"{100 * row.slow:g} a night" if row.slow else f"{100 * row.sudden:g} at once"
    cells = (
        f"{row.items}",
        f"{row.flips:.0%}",
        f"{row.changed:.0%}",
        "nothing" if row.is_quiet else lost,
        f"{rates.loss:.1%}",
        f"{rates.drift:.1%}",
        f"{rates.either:.1%}",
        f"{rates.told:.1%}" + (" BROKEN" if breaks(row, rates) else ""),
        _night(rates.median),
        _night(rates.most),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
