"""How often the gate is wrong where each item is asked several times, and whether the plan holds.

    python -m scripts.simulate_repeats             # print the table; exit 1 if a promise is broken
    python -m scripts.simulate_repeats --record    # and add its worst rows to the ledger

A row is a distribution of the items' accuracies, a number of items and of repeats. Its margin is
the smallest that the plan says can be decided, so that a candidate without loss should get GO
four times in five. Two candidates lose exactly the margin: `even` on every item, by its log odds;
`few` all of it on a few items, which is the hardest to see. Both must get GO at most 6 times in
100, and the plan must be within 3 points. Beside the gate's score interval stands how often
Student's interval of the items' means would be wrong: it is what others use, and too narrow where
few items lose.

The candidates are drawn with numpy from distributions that the plan does not know: it is told two
standard deviations and an accuracy, as `variances_of` would measure them.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import TaskSpec, Tier
from harness.gate import chance_of_go, smallest_margin
from harness.gate.mean import exceeds
from harness.gate.quantiles import t_of, z_of
from scripts import ledger

COMMAND = "python -m scripts.simulate_repeats --record"
CONFIDENCE = 0.95
MOST_FALSE = 0.06
MOST_OFF = 0.03
"""How far the plan may be away."""
DRAWS = 5_000
AT_ONCE = 500
"""Draws that are held in memory together."""
MEASURED = 400_000
"""Items that the true spread of a distribution is taken from."""
NOISE = 0.5
"""Standard deviation of what a candidate does to an item's log odds."""
SEED = 11
HALVINGS = 30
WIDEST = 10.0
INSIDE = 1e-6
MOST_LOST = 0.85
"""Share of the accuracy that a margin may allow to lose; the gate refuses wider ones."""
DISTRIBUTIONS = ("bimodal", "uniform", "hard")
ITEMS = (30, 100, 300, 1000)
REPEATS = (1, 4, 16, 64)
HEAD = (
    "| accuracies | items | repeats | margin | GO, no loss | plan | false GO, even loss | "
    "false GO, few items lose | the same, Student's |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

Values = NDArray[np.float64]


class Row(NamedTuple):
    """What is simulated."""

    distribution: str
    items: int
    repeats: int


class Rates(NamedTuple):
    """How often candidates get GO."""

    go: float
    plan: float
    even: float
    few: float
    student: float
    """Candidates of `few` that Student's interval would pass."""


class Passed(NamedTuple):
    """How often candidates pass the gate's interval, and Student's."""

    gate: float
    student: float


def accuracies(distribution: str, draws: np.random.Generator, size: tuple[int, ...]) -> Values:
    """Return the baseline's accuracy on items."""
    if distribution == "uniform":
        return draws.uniform(0.0, 1.0, size)
    if distribution == "hard":
        return np.asarray(0.4 * draws.beta(0.6, 1.0, size))
    solved = draws.random(size) < 0.7  # noqa: PLR2004  three quarters of a bimodal benchmark
    return np.where(solved, draws.uniform(0.9, 1.0, size), draws.uniform(0.0, 0.1, size))


def candidate_of(baseline: Values, draws: np.random.Generator, *, loss: float, few: bool) -> Values:
    """Return a candidate's accuracies, which are lower by `loss` in the mean."""
    if few:
        share = loss / float(baseline.mean())
        return np.where(draws.random(baseline.shape) < share, 0.0, baseline)
    inside = np.clip(baseline, INSIDE, 1 - INSIDE)
    moved = np.log(inside / (1 - inside)) + NOISE * draws.standard_normal(baseline.shape)
    low, high = -WIDEST, WIDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        lost = float((baseline - 1 / (1 + np.exp(-moved - middle))).mean())
        low, high = (middle, high) if lost > loss else (low, middle)
    return np.asarray(1 / (1 + np.exp(-moved - low)))


@lru_cache(maxsize=100)
def task_of(row: Row) -> TaskSpec:
    """Return the task as it would be planned: its spread as a long measurement finds it."""
    draws = np.random.default_rng(SEED)
    baseline = accuracies(row.distribution, draws, (MEASURED,))
    candidate = candidate_of(baseline, draws, loss=0.0, few=False)
    of_items = float((candidate - baseline).var())
    of_repeats = float((baseline * (1 - baseline) + candidate * (1 - candidate)).mean())
    task = TaskSpec(
        name="task",
        tier=Tier.CRITICAL,
        metric="exact_match",
        filter="none",
        items=row.items,
        margin=0.5,
        flip_rate=of_items + of_repeats,
        num_fewshot=0,
        chance=0.0,
        baseline_accuracy=float(baseline.mean()),
        repeats=row.repeats,
        temperature=0.6,
        item_sd=of_items**0.5,
        repeat_sd=of_repeats**0.5,
    )
    return replace(task, margin=smallest_margin(task, CONFIDENCE))


def simulate(row: Row, *, seed: int, num_draws: int = DRAWS) -> Rates:
    """Draw and judge candidates without loss, and two kinds that lose the margin."""
    task = task_of(row)
    margin = task.margin or 0.0
    none, even, few = (
        passed(task, row.distribution, (seed, kind), loss=loss, few=few, num_draws=num_draws)
        for kind, (loss, few) in enumerate(((0.0, False), (margin, False), (margin, True)))
    )
    plan = chance_of_go(task, CONFIDENCE)
    return Rates(none.gate, plan, even.gate, few.gate, few.student)


def passed(  # noqa: PLR0913  each is another part of what is drawn
    task: TaskSpec,
    distribution: str,
    seed: tuple[int, int],
    *,
    loss: float,
    few: bool,
    num_draws: int,
) -> Passed:
    """Return how often candidates pass."""
    draws = np.random.default_rng([SEED, *seed])
    gate, student = 0, 0
    for _ in range(num_draws // AT_ONCE):
        size = AT_ONCE, task.items
        baseline = accuracies(distribution, draws, size)
        candidate = candidate_of(baseline, draws, loss=loss, few=few)
        wins = draws.binomial(task.repeats, candidate) - draws.binomial(task.repeats, baseline)
        gate += sum(is_go(task, wins_of) for wins_of in wins)
        student += int(student_passes(task, wins / task.repeats).sum())
    drawn = num_draws // AT_ONCE * AT_ONCE
    return Passed(gate / drawn, student / drawn)


def is_go(task: TaskSpec, wins: NDArray[np.int64]) -> bool:
    """Return what the gate's interval decides: its own function, on the items' means."""
    counts = {int(w) / task.repeats: n for w, n in Counter(wins.tolist()).items()}
    return exceeds(counts, -(task.margin or 0.0), lowest=-1.0, quantile=z_of(CONFIDENCE))


def student_passes(task: TaskSpec, means: Values) -> NDArray[np.bool_]:
    """Return what Student's interval of the items' means would decide."""
    error = means.std(axis=1, ddof=1) / task.items**0.5
    gap = means.mean(axis=1) + (task.margin or 0.0)
    return np.asarray(gap > t_of(CONFIDENCE, task.items - 1) * error)


def rows() -> Iterator[Row]:
    """Yield what is simulated: a margin near the accuracy itself would pass who never answers."""
    return (row for row in all_rows() if _is_gate(task_of(row)))


def _is_gate(task: TaskSpec) -> bool:
    return (task.margin or 0.0) < MOST_LOST * task.baseline_accuracy


def all_rows() -> Iterator[Row]:
    """Yield every distribution with every number of items and repeats."""
    for distribution in DISTRIBUTIONS:
        for items in ITEMS:
            for repeats in REPEATS:
                yield Row(distribution, items, repeats)


def breaks(rates: Rates) -> bool:
    """Return whether a row breaks a promise."""
    return max(rates.even, rates.few) > MOST_FALSE or abs(rates.go - rates.plan) > MOST_OFF


def main() -> int:
    """Print every row, then what is worst; fail if a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(HEAD)
    all_rates: list[Rates] = []
    for seed, row in enumerate(rows()):
        rates = simulate(row, seed=seed)
        all_rates.append(rates)
        print(_line(row, task_of(row).margin or 0.0, rates), flush=True)
    values = {
        "rows: accuracies x items x repeats": " x ".join(
            f"{', '.join(map(str, each))}" for each in (DISTRIBUTIONS, ITEMS, REPEATS)
        ),
        "false GO at a loss of the margin, on every item": f"{max(r.even for r in all_rates):.1%}",
        "false GO at a loss of the margin, on a few items": f"{max(r.few for r in all_rates):.1%}",
        "the same with Student's interval": f"{max(r.student for r in all_rates):.1%}",
        "farthest from the planned chance of GO, points": (
            f"{100 * max(abs(r.go - r.plan) for r in all_rates):.1f}"
        ),
        "rows that break a promise": str(sum(map(breaks, all_rates))),
    }
    for name, value in values.items():
        print(f"{name}: {value}")
    if arguments.record:
        ledger.append("Items asked several times, worst rows", command=COMMAND, values=values)
    return int(any(map(breaks, all_rates)))


def _line(row: Row, margin: float, rates: Rates) -> str:
    cells = (
        row.distribution,
        f"{row.items}",
        f"{row.repeats}",
        f"{margin:.2%}",
        f"{rates.go:.1%}",
        f"{rates.plan:.1%}" + (" BROKEN" if breaks(rates) else ""),
        f"{rates.even:.1%}",
        f"{rates.few:.1%}",
        f"{rates.student:.1%}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
