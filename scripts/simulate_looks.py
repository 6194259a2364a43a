"""How often a run that looks at its tasks early is wrong, and what it saves.

    python -m scripts.simulate_looks             # print the table; exit 1 if a promise is broken
    python -m scripts.simulate_looks --record    # and add its worst rows to the ledger

A row is a task and a true loss. Candidates are drawn item by item and looked at as `--end-early`
looks (harness.gate.sequential, the gate's own functions): after an eighth, a quarter and half of
the items, and at the end. Promised is that

- a candidate that loses the margin exactly is NO-GO at most 6 times in 100, over all looks
  together, which is what one look at the end may be;
- looking takes no GO away that a full run would have given, and gives none that it would not;
- a ruined candidate (it loses half of 300 items or more) is NO-GO after a quarter of them.

Beside it stands how often looking as often without spending (each look at the suite's confidence)
would say NO-GO.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import Sample, TaskSpec, Tier, WhyEnded
from harness.gate import look, looks_of
from harness.gate.sequential import spent
from harness.gate.tango import tango_bounds
from scripts import ledger
from scripts.simulate_gate import suite_of

COMMAND = "python -m scripts.simulate_looks --record"
CONFIDENCE = 0.95
MOST_FALSE = 0.06
SURE = 0.99
RUINED_BY = 0.26
"""Share of the items after which a ruined candidate is known."""
DRAWS = 2_000
CHECKED = 20
"""Draws of a row that are judged by `look` itself; all others by its bounds, which are as many as
the counts of lost and won items."""
SEED = 17
HEAD = (
    "| items | flips | margin | true loss | NO-GO | at the first look | out of reach early | GO | "
    "GO of a full run | items asked | NO-GO without spending |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

Kinds = NDArray[np.int64]


class Row(NamedTuple):
    """What is simulated."""

    items: int
    flips: float
    margin: float
    loss: float


class Outcome(NamedTuple):
    """How one candidate's run ended."""

    why: WhyEnded | None
    asked: int
    is_go: bool
    """Of a full run."""
    no_go_unspent: bool
    """Whether a look at the suite's confidence, one of all, proves the loss."""


class Rates(NamedTuple):
    """Over all candidates of a row."""

    no_go: float
    first: float
    out_of_reach: float
    go: float
    full_go: float
    share: float
    """Of the items that were asked."""
    unspent: float


def rows() -> Iterator[Row]:
    """Yield tasks, each with no loss, half the margin, the margin, twice it, and half of all."""
    for items, flips, margin in (
        (30, 0.05, 0.15),
        (100, 0.05, 0.08),
        (300, 0.06, 0.05),
        (700, 0.01, 0.02),
        (1000, 0.08, 0.025),
    ):
        for loss in (0.0, margin / 2, margin, 2 * margin, 0.5):
            yield Row(items, max(flips, loss), margin, loss)


def task_of(row: Row) -> TaskSpec:
    """Return the task of a row."""
    return TaskSpec(
        name="task",
        tier=Tier.CRITICAL,
        metric="acc",
        filter="none",
        items=row.items,
        margin=row.margin,
        flip_rate=row.flips,
        num_fewshot=0,
        chance=0.0,
    )


def simulate(row: Row, *, seed: int, num_draws: int = DRAWS) -> Rates:
    """Draw candidates and look at each as a run does."""
    draws = np.random.default_rng([SEED, seed])
    lost, won = (row.flips + row.loss) / 2, (row.flips - row.loss) / 2
    known: dict[tuple[int, ...], Outcome] = {}
    outcomes: list[Outcome] = []
    for number in range(num_draws):
        kinds = draws.choice(3, size=row.items, p=[lost, won, 1 - lost - won])
        key = _counts(row, kinds)
        if key not in known:
            known[key] = run_of(row, kinds)
            if number < CHECKED and known[key] != run_of(row, kinds, by_look=True):
                message = f"the bounds and `look` disagree on {row}"
                raise AssertionError(message)
        outcomes.append(known[key])
    at_first = looks_of(task_of(row))[0]
    no_go = [o for o in outcomes if o.why is WhyEnded.INFERIOR]
    return Rates(
        no_go=len(no_go) / num_draws,
        first=sum(o.asked == at_first for o in no_go) / num_draws,
        out_of_reach=sum(o.why is WhyEnded.OUT_OF_REACH and o.asked < row.items for o in outcomes)
        / num_draws,
        go=sum(o.why is None and o.is_go for o in outcomes) / num_draws,
        full_go=sum(o.is_go for o in outcomes) / num_draws,
        share=sum(o.asked for o in outcomes) / num_draws / row.items,
        unspent=sum(o.no_go_unspent for o in outcomes) / num_draws,
    )


def run_of(row: Row, kinds: Kinds, *, by_look: bool = False) -> Outcome:
    """Return how a run on one candidate ends; kinds are 0 lost, 1 won, 2 alike."""
    looks: tuple[int, ...] = ()
    ended: tuple[WhyEnded | None, int] | None = None
    unspent = False
    for asked in (*looks_of(task_of(row)), row.items):
        why = _look(row, kinds, asked, looks) if by_look else _bounds(row, kinds, asked, looks)
        if ended is None and why is not None:
            ended = why, asked
        unspent = unspent or _of(kinds[:asked], CONFIDENCE)[1] < -row.margin
        looks = (*looks, asked)
    why, asked = ended or (None, row.items)
    return Outcome(why, asked, bool(_of(kinds, CONFIDENCE)[0] > -row.margin), unspent)


def _bounds(row: Row, kinds: Kinds, asked: int, looks: tuple[int, ...]) -> WhyEnded | None:
    level = 1 - CONFIDENCE
    before = spent(looks[-1] / row.items, level) if looks else 0.0
    confidence = 1 - (spent(asked / row.items, level) - before)
    if _of(kinds[:asked], confidence)[1] < -row.margin:
        return WhyEnded.INFERIOR
    if asked < row.items / 2:
        return None
    # What the baseline has wrong, the candidate may still win.
    best = np.where((np.arange(row.items) >= asked) & (kinds != 1), 2, kinds)
    return None if _of(best, CONFIDENCE)[0] > -row.margin else WhyEnded.OUT_OF_REACH


def _of(kinds: Kinds, confidence: float) -> tuple[float, float]:
    lost, won = int((kinds == 0).sum()), int((kinds == 1).sum())
    bounds = tango_bounds(lost, won, len(kinds), confidence=confidence)
    return bounds.low, bounds.high


def _look(row: Row, kinds: Kinds, asked: int, looks: tuple[int, ...]) -> WhyEnded | None:
    baseline = [_sample(item, float(kind != 1)) for item, kind in enumerate(kinds)]
    candidate = [_sample(item, float(kind != 0)) for item, kind in enumerate(kinds[:asked])]
    return look(task_of(row), suite_of(task_of(row)), baseline, candidate, looks)


def _counts(row: Row, kinds: Kinds) -> tuple[int, ...]:
    """Return what a run sees: the lost and won items at each look."""
    ends = (*looks_of(task_of(row)), row.items)
    return tuple(int((kinds[:end] == kind).sum()) for end in ends for kind in (0, 1))


def _sample(item: int, value: float) -> Sample:
    return Sample(
        doc_id=item,
        doc_hash="",
        prompt_hash="",
        target_hash="",
        value=value,
        prompt="",
        target="",
        answer="an answer",
        finish="stop",
    )


def breaks(row: Row, rates: Rates) -> bool:
    """Return whether a row breaks a promise."""
    is_false = row.loss <= row.margin and rates.no_go > MOST_FALSE
    is_ruined = row.loss >= max(0.5, 2 * row.margin)
    is_slow = rates.share > RUINED_BY or rates.no_go < SURE
    is_slow = is_slow and is_ruined and row.items >= 300  # noqa: PLR2004  fewer show less
    return is_false or is_slow or rates.go != rates.full_go


def main() -> int:
    """Print every row, then what is worst; fail if a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(HEAD)
    found = [(row, simulate(row, seed=seed)) for seed, row in enumerate(rows())]
    for row, rates in found:
        print(_line(row, rates), flush=True)
    at_margin = [rates for row, rates in found if row.loss == row.margin]
    ruined = [rates for row, rates in found if row.loss == 0.5]  # noqa: PLR2004
    values = {
        "NO-GO at a loss of exactly the margin, all looks together": (
            f"{max(r.no_go for r in at_margin):.1%}"
        ),
        "the same, looking as often without spending": f"{max(r.unspent for r in at_margin):.1%}",
        "GO taken away or given by looking": (
            f"{max(abs(r.go - r.full_go) for _, r in found):.1%}"
        ),
        "share of the items that a ruined candidate is asked": (
            f"{min(r.share for r in ruined):.1%} to {max(r.share for r in ruined):.1%}"
        ),
        "share of the items at twice the margin": " to ".join(
            f"{end:.1%}"
            for end in (
                min(r.share for row, r in found if row.loss == 2 * row.margin),
                max(r.share for row, r in found if row.loss == 2 * row.margin),
            )
        ),
        "rows that break a promise": str(sum(breaks(*one) for one in found)),
    }
    for name, value in values.items():
        print(f"{name}: {value}")
    if arguments.record:
        ledger.append("Looking before all is answered, worst rows", command=COMMAND, values=values)
    return int(any(breaks(*one) for one in found))


def _line(row: Row, rates: Rates) -> str:
    cells = (
        f"{row.items}",
        f"{row.flips:.1%}",
        f"{row.margin:.1%}",
        f"{row.loss:.1%}",
        f"{rates.no_go:.1%}" + (" BROKEN" if breaks(row, rates) else ""),
        f"{rates.first:.1%}",
        f"{rates.out_of_reach:.1%}",
        f"{rates.go:.1%}",
        f"{rates.full_go:.1%}",
        f"{rates.share:.1%}",
        f"{rates.unspent:.1%}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
