"""How often the gate is wrong about a perplexity: documents are drawn, judged, and counted.

    python -m scripts.simulate_perplexity             # print the table; exit 1 if a promise breaks
    python -m scripts.simulate_perplexity --record    # and add its summary to the ledger

A row is a number of documents, how unequal their lengths are, and what their differences look
like. `GO at the margin` is a false GO, of 5 % by design; `NO-GO at the margin` is a false NO-GO;
`GO of no loss` stands beside the plan's. Differences that are as often up as down must stay below
SYMMETRIC, and those with a long tail of losses below SKEWED. Of rare losses (one document in 20
carries all of the loss) nothing is promised, for most small draws hold none of them.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import TaskSpec, Tier
from harness.gate import chance_of_go
from harness.gate.ratio import Weighted, ratio_bounds
from scripts import ledger

COMMAND = "python -m scripts.simulate_perplexity --record"
CONFIDENCE = 0.95
MARGIN = 0.01
SEED = 7
SYMMETRIC = 0.06
SKEWED = 0.085
ERRORS = 3
"""Standard errors of drawing that a rate may be above its promise."""
HEAD = (
    "| documents | lengths (sigma) | differences | GO at the margin | NO-GO at the margin | "
    "GO of no loss | plan |\n| --- | --- | --- | --- | --- | --- | --- |"
)
Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]


class Kind(NamedTuple):
    """What differences look like: mean 0 and variance 1."""

    draw: Draw
    most: float | None
    """Promise of false GO; None where there is none."""


class Rates(NamedTuple):
    """What became of the candidates of one row."""

    false_go: float
    false_no_go: float
    go: float
    plan: float


def _rare(draws: np.random.Generator, size: int) -> Values:
    losses: Values = np.where(draws.random(size) < 1 / 20, -1.0, 0.0)
    return (losses + 1 / 20) / math.sqrt(19 / 400)


KINDS: Mapping[str, Kind] = {
    "normal": Kind(lambda draws, size: draws.normal(size=size), SYMMETRIC),
    "heavy tails (t, 3)": Kind(
        lambda draws, size: draws.standard_t(3, size=size) / math.sqrt(3), SYMMETRIC
    ),
    "long tail of losses": Kind(lambda draws, size: 1 - draws.exponential(size=size), SKEWED),
    "long tail of gains": Kind(lambda draws, size: draws.exponential(size=size) - 1, SYMMETRIC),
    "rare losses": Kind(_rare, None),
}


class Cell(NamedTuple):
    """One row."""

    documents: int
    lengths: float
    """Standard deviation of the logarithm of their lengths."""
    kind: str
    draws: int

    @property
    def task(self) -> TaskSpec:
        """Return the task that is judged, with a spread that 80 % of good candidates pass."""
        return TaskSpec(
            name="drawn",
            tier=Tier.CRITICAL,
            metric="word_perplexity",
            filter="none",
            items=self.documents,
            num_fewshot=0,
            relative_margin=MARGIN,
            spread=0.39 * MARGIN * math.sqrt(self.documents),
        )


def cells() -> Iterator[Cell]:
    """Yield what is simulated."""
    for documents, draws in ((10, 3000), (20, 3000), (62, 3000), (300, 2000), (2000, 500)):
        for lengths in (0.0, 0.7):
            for kind in KINDS:
                yield Cell(documents, lengths, kind, draws)


def simulate(cell: Cell, *, row: int) -> Rates:
    """Draw and judge the candidates of one row; each row has draws of its own.

    A document's difference is a sum over its words, so its deviation grows with their root.
    """
    draws, task = np.random.default_rng([SEED, row]), cell.task
    limit = -math.log1p(MARGIN)
    false_go = false_no_go = go = 0
    for _ in range(cell.draws):
        weights = draws.lognormal(0, cell.lengths, size=cell.documents)
        weights /= weights.mean()
        noise = task.spread * np.sqrt(weights) * KINDS[cell.kind].draw(draws, cell.documents)
        seen = [Weighted(float(d), float(w)) for d, w in zip(noise, weights, strict=True)]
        bounds = ratio_bounds(seen, confidence=CONFIDENCE)
        # At the margin every document is moved by the same amount a word, and so are the bounds.
        false_go += bounds.low + limit > limit
        false_no_go += bounds.high + limit < limit
        go += bounds.low > limit
    return Rates(
        false_go / cell.draws,
        false_no_go / cell.draws,
        go / cell.draws,
        chance_of_go(task, CONFIDENCE),
    )


def is_broken(cell: Cell, rates: Rates) -> bool:
    """Return whether more than chance lifts false GOs above what is promised."""
    most = KINDS[cell.kind].most
    if most is None:
        return False
    return rates.false_go > most + ERRORS * math.sqrt(most * (1 - most) / cell.draws)


def main() -> int:
    """Print every row, then what is worst; fail if a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(HEAD)
    worst: dict[str, float] = {}
    failed = 0
    for row, cell in enumerate(cells()):
        rates = simulate(cell, row=row)
        broken = is_broken(cell, rates)
        failed += broken
        name = f"false GO, {cell.kind}"
        worst[name] = max(worst.get(name, 0.0), rates.false_go)
        shown = (f"{rate:.1%}" for rate in rates)
        note = " BROKEN" if broken else ""
        begin = f"| {cell.documents} | {cell.lengths:g} | {cell.kind} | "
        print(f"{begin}{' | '.join(shown)}{note} |", flush=True)
    values = {name: f"{rate:.1%}" for name, rate in worst.items()}
    for name, value in values.items():
        print(f"worst {name}: {value}")
    if arguments.record:
        ledger.append(
            "How often the gate is wrong about a perplexity", command=COMMAND, values=values
        )
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
