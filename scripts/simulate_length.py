"""How often the gate of answers' lengths is wrong: changes of length are drawn and judged.

    python -m scripts.simulate_length             # print the table; exit 1 if it errs too often
    python -m scripts.simulate_length --record    # and add its worst rows to the ledger

The true geometric mean lies on the band's edge, where `within` and `longer` are both wrong. Each
bound is to err in 5 % of the cases. Beside it stands what Student's bounds alone would do.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.gate.length import Change, bounds_of
from harness.gate.quantiles import t_of
from scripts import ledger

COMMAND = "python -m scripts.simulate_length --record"
CONFIDENCE = 0.95
BAND = math.log(1.05)
DRAWS = 600
ITEMS = (30, 100, 300, 1000)
MOST_WRONG = 1 - CONFIDENCE
ERRORS = 4
"""Standard errors of drawing that a rate may lie above it."""

Draws = np.random.Generator
Values = NDArray[np.float64]
Shape = Callable[[Draws, int], Values]


def _run_on(share: float, times: float, spread: float) -> Shape:
    """Return changes of which a share runs on, so that their mean is 0."""

    def draw(draws: Draws, items: int) -> Values:
        runs = draws.random(items) < share
        alike = draws.normal(0.0, spread, items)
        return np.where(runs, math.log(times), alike) - share * math.log(times)

    return draw


def _mostly_equal(draws: Draws, items: int) -> Values:
    return np.where(draws.random(items) < 0.9, 0.0, draws.laplace(0.0, 0.5, items))  # noqa: PLR2004  one in ten


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "all vary": lambda draws, items: draws.normal(0.0, 0.3, items),
        "some vary much": lambda draws, items: draws.laplace(0.0, 0.4, items),
        "nine in ten keep their length": _mostly_equal,
        "one in twenty runs on": _run_on(0.05, 8, 0.15),
        "one in a hundred runs on": _run_on(0.01, 16, 0.1),
    }
)


class Rates(NamedTuple):
    """How often something was said that is not so."""

    within: float
    longer: float
    students_within: float
    students_longer: float


def rates(shape: Shape, *, items: int, draws: int, seed: int) -> Rates:
    """Return how often a change on the band's edge is called within, or beyond, the band."""
    random = np.random.default_rng(seed)
    quantile = t_of(CONFIDENCE, items - 1)
    said = np.zeros(4)
    for _ in range(draws):
        values = shape(random, items) + BAND
        changes = [Change(v, v, v, "") for v in values.tolist()]
        bounds = bounds_of(changes, CONFIDENCE)
        half = quantile * values.std(ddof=1) / math.sqrt(items)
        mean = values.mean()
        said += (bounds.high < BAND, bounds.low > BAND, mean + half < BAND, mean - half > BAND)
    return Rates(*(said / draws).tolist())


def main() -> int:
    """Print the table; return 1 if a bound errs more often than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="add the worst rows to the ledger")
    record = parser.parse_args().record
    print("| changes | items | within | longer | Student's within | Student's longer |")
    print("| --- | --- | --- | --- | --- | --- |")
    found = []
    for seed, (name, items) in enumerate((n, i) for n in SHAPES for i in ITEMS):
        row = rates(SHAPES[name], items=items, draws=DRAWS, seed=seed)
        found.append(row)
        print(f"| {name} | {items} | {' | '.join(f'{rate:.1%}' for rate in row)} |", flush=True)
    worst = {
        f"largest share, {field}": f"{max(getattr(row, field) for row in found):.1%}"
        for field in Rates._fields
    }
    for name, value in worst.items():
        print(f"{name}: {value}")
    if record:
        values = {"draws a row, at the band's edge": str(DRAWS), **worst}
        ledger.append("How often lengths are judged wrongly", command=COMMAND, values=values)
    most = MOST_WRONG + ERRORS * math.sqrt(MOST_WRONG * CONFIDENCE / DRAWS)
    return int(any(max(row.within, row.longer) > most for row in found))


if __name__ == "__main__":
    sys.exit(main())
