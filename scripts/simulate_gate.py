"""How often the gate is wrong: candidates are drawn, judged by the gate itself, and counted.

    python -m scripts.simulate_gate             # print the table; exit 1 if the plan is wrong
    python -m scripts.simulate_gate --record    # and add its summary to the ledger

A row is a form of the gate, a number of items, a rate of flips and a true drop. GO at a drop of
the margin or more is a false GO; anything but GO at no drop is a lost GO, and NO-GO there is a
false NO-GO. `plan` is what --plan says of GO; a row whose GO differs from it by more than four
standard errors of drawing fails. Last come whole suites: how often a candidate without loss passes
all critical tasks, beside the joint chance that --plan prints.

Candidates are drawn with numpy and have nothing in common with the plan's own sums and draws;
decisions are those of harness.gate.decide. Tables that were drawn twice are judged once.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import Claim, Decision, Sample, Suite, TaskScore, TaskSpec, Tier
from harness.gate import chance_of_go, joint_probability_of_go
from harness.gate.claims import examine_claims
from harness.gate.decide import decide
from harness.gate.pairs import AnswerPair, Side, TaskPairs
from harness.recipe import load_suite
from scripts import ledger

COMMAND = "python -m scripts.simulate_gate --record"
CONFIDENCE = 0.95
ERRORS = 4
"""Standard errors of drawing that a rate may be away from its plan."""
JOINT_DRAWS = 1_000
SUITES = ("canary", "drill", "nightly", "signoff")
"""Shipped suites whose joint chance of GO is drawn too."""
PLAN_DRAWS = 1_000
"""Of the plan of grouped items, which is drawn too."""
DUST = 1e-12
SEED = 7
JOINT_ROWS = 1_000
"""Number of the first joint row, so that its draws are its own."""
HEAD = (
    "| form | items | flips | design effect stated / true | asked | true loss | GO | plan | "
    "INCONCLUSIVE | NO-GO |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


Values = NDArray[np.float64]


class Cell(NamedTuple):
    """One row of the table."""

    form: str
    task: TaskSpec
    drop: float
    """True loss, as a fraction of 1."""
    draws: int
    effect: float = 1.0
    """True design effect of the groups."""
    skewed: bool = False
    """Whether most items win a little and a few lose all; the plan does not know such models."""

    @property
    def is_planned(self) -> bool:
        """Whether the plan speaks of such candidates."""
        return not self.skewed and self.effect <= self.task.design_effect

    @property
    def limit(self) -> float:
        """The drop from which on GO is wrong."""
        if self.task.recovery is not None:
            return (1 - self.task.recovery) * self.task.baseline_accuracy
        return self.task.margin or 0.0


class Rates(NamedTuple):
    """How often each decision was made, and how often the plan says GO."""

    go: float
    no_go: float
    plan: float | None


def task_of(items: int, flip_rate: float, **changes: object) -> TaskSpec:
    """Return a task with a baseline of 90 %."""
    settings: dict[str, object] = {
        "name": "task",
        "tier": Tier.CRITICAL,
        "metric": "acc",
        "filter": "none",
        "items": items,
        "margin": 0.03,
        "flip_rate": flip_rate,
        "num_fewshot": 0,
        "chance": 0.0,
        "baseline_accuracy": 0.9,
    }
    return TaskSpec(**{**settings, **changes})  # type: ignore[arg-type]  # the fields vary


def cells() -> Iterator[Cell]:
    """Yield what is simulated."""
    for items, flip_rate, margin in ((300, 0.05, 0.05), (700, 0.02, 0.02), (1319, 0.08, 0.025)):
        for share in (0.0, 0.5, 1.0, 1.5):
            drop = share * margin
            rate = max(flip_rate, drop)
            yield Cell("margin", task_of(items, rate, margin=margin), drop, 4000)
        for drop in (0.0, margin):
            claimed = task_of(items, flip_rate, margin=margin, claim=Claim.LOSSLESS)
            yield Cell("lossless", claimed, drop, 4000)
            kept = task_of(items, flip_rate, margin=None, recovery=1 - margin)
            yield Cell("recovery", kept, 0.9 * drop, 2000)
    yield Cell("recovery", task_of(1319, 0.005, margin=None, recovery=0.99), 0.0, 2000)
    yield from _grouped()
    for drop in (0.0, 0.05):
        yield Cell("values", _valued(100), drop, 1500)
        for items in (8, 60):
            yield Cell("values, rare losses", _valued(items), drop, 400, skewed=True)


def _grouped() -> Iterator[Cell]:
    for clusters, stated, effect in (
        (14, 1.0, 1.0),
        (14, 3.0, 3.0),
        (14, 1.0, 3.0),
        (140, 2.0, 2.0),
        (1400, 1.0, 1.0),
    ):
        for drop in (0.0, 0.03):
            task = task_of(1400, 0.06, cluster="x", clusters=clusters, design_effect=stated)
            yield Cell(f"{clusters} clusters", task, drop, 800, effect=effect)


def _valued(items: int) -> TaskSpec:
    return task_of(items, 0.4, margin=0.05, value_range=(0.0, 1.0), spread=0.3)


def simulate(cell: Cell, *, row: int) -> Rates:
    """Draw and judge the candidates of one row; each row has draws of its own."""
    draws = np.random.default_rng([SEED, row])
    judged: dict[bytes, Decision] = {}
    counts = dict.fromkeys(Decision, 0)
    for _ in range(cell.draws):
        answers = _skewed(cell, draws) if cell.skewed else _draw(cell, draws)
        order = np.lexsort(answers)
        key = answers[:, order].tobytes()
        if key not in judged:
            judged[key] = judge_answers(cell.task, answers[:, order])
        counts[judged[key]] += 1
    plan = None
    if cell.is_planned:
        difference = -cell.drop / cell.task.spread
        plan = chance_of_go(cell.task, CONFIDENCE, difference=difference)
    return Rates(counts[Decision.GO] / cell.draws, counts[Decision.NO_GO] / cell.draws, plan)


def simulate_joint(suite: Suite, *, row: int) -> tuple[float, float]:
    """Return how often a candidate without loss passes all critical tasks, and the plan of it."""
    draws = np.random.default_rng([SEED, row])
    tasks = [Cell("joint", task, 0.0, 0) for task in suite.tasks if task.tier is Tier.CRITICAL]
    judged: dict[tuple[str, bytes], bool] = {}

    def passes(cell: Cell) -> bool:
        answers = _draw(cell, draws)
        answers = answers[:, np.lexsort(answers)]
        key = cell.task.name, answers.tobytes()
        if key not in judged:
            judged[key] = judge_answers(cell.task, answers) is Decision.GO
        return judged[key]

    num_passed = sum(all(passes(cell) for cell in tasks) for _ in range(JOINT_DRAWS))
    return num_passed / JOINT_DRAWS, joint_probability_of_go(suite)


def _draw(cell: Cell, draws: np.random.Generator) -> Values:
    """Return baseline, candidate and group of each item: rows of one array."""
    task, step = cell.task, cell.task.spread
    shift = cell.drop / step
    lost, won = (task.flip_rate + shift) / 2, (task.flip_rate - shift) / 2
    right = min(task.baseline_accuracy - lost, 1 - lost - won)
    shares = [lost, won, right, 1 - lost - won - right]
    kinds = draws.choice(4, size=task.items, p=shares)
    groups = np.arange(task.items) % max(task.clusters, 1)
    if cell.effect > 1:
        fates = draws.choice(4, size=task.clusters, p=shares)
        alike = math.sqrt((cell.effect - 1) / (task.items / task.clusters - 1))
        copies = draws.random(task.items) < alike
        kinds = np.where(copies, fates[groups], kinds)
    if task.value_range:
        baseline = np.full(task.items, 0.5)
        candidate = baseline + np.array([-step, step, 0.0, 0.0])[kinds]
    else:
        baseline = np.array([1.0, 0.0, 1.0, 0.0])[kinds]
        candidate = np.array([0.0, 1.0, 1.0, 0.0])[kinds]
    return np.stack([groups.astype(np.float64), candidate, baseline])


def _skewed(cell: Cell, draws: np.random.Generator) -> Values:
    """Most items win a hundredth; a few of them lose everything, so that the mean loss is right."""
    items = cell.task.items
    baseline = draws.uniform(0.3, 0.99, size=items)
    gain = 0.01
    rate = (cell.drop + gain) / (baseline.mean() + gain)
    candidate = np.where(draws.random(items) < rate, 0.0, baseline + gain)
    return np.stack([np.zeros(items), candidate, baseline])


def judge_answers(task: TaskSpec, answers: Values) -> Decision:
    """Return the gate's decision on one candidate."""
    groups, candidate, baseline = answers
    left, right = (
        tuple(_sample(task, float(v), float(g)) for v, g in zip(row, groups, strict=True))
        for row in (baseline, candidate)
    )
    sides = _side("baseline", task, baseline, left), _side("candidate", task, candidate, right)
    paired = TaskPairs(task, sides, tuple(map(AnswerPair, left, right)))
    suite = suite_of(task)
    claim = examine_claims([paired], suite).get(task.name)
    return decide(paired, suite, claim=claim, rerun_flip_rate=None).decision


@lru_cache(maxsize=100_000)
def _sample(task: TaskSpec, value: float, group: float) -> Sample:
    return Sample(
        doc_id=0,
        doc_hash="",
        prompt_hash="",
        target_hash="",
        value=value,
        prompt="",
        target="",
        answer="an answer",
        finish="stop",
        cluster=f"{group:g}" if task.cluster else "",
    )


def _side(arm: str, task: TaskSpec, row: Values, samples: tuple[Sample, ...]) -> Side:
    score = TaskScore(
        task=task.name,
        metric=task.metric,
        value=float(row.mean()),
        stderr=0.0,
        num_items=task.items,
        num_errors=0,
        num_empty=0,
        num_truncated=0,
        num_prompts_cut=0,
        samples="",
        samples_sha256="",
    )
    return Side(arm, score, samples)


def suite_of(task: TaskSpec) -> Suite:
    """Return a suite of one task."""
    return Suite(
        name="simulated",
        tasks=(task,),
        max_model_len=1,
        apply_chat_template=False,
        seed=SEED,
        batch_size=1,
        confidence=CONFIDENCE,
        max_truncated=0.0,
        digest="",
    )


def differs_from_plan(cell: Cell, rates: Rates) -> bool:
    """Return whether more than chance separates the drawn rate of GO from the planned one."""
    if rates.plan is None:
        return False
    variance = max(rates.plan * (1 - rates.plan), 1 / cell.draws) / cell.draws
    if cell.task.cluster:
        variance *= 1 + cell.draws / PLAN_DRAWS
    return abs(rates.go - rates.plan) > ERRORS * math.sqrt(variance)


def main() -> int:
    """Print every row, then what is worst; fail if the plan or a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(HEAD)
    worst: dict[str, float] = {}
    failed = 0
    for row, cell in enumerate(cells()):
        rates = simulate(cell, row=row)
        wrong = differs_from_plan(cell, rates)
        failed += wrong
        print(_row(cell, rates, wrong=wrong), flush=True)
        for name, rate in _errors(cell, rates):
            worst[name] = max(worst.get(name, 0.0), rate)
    values = {name: f"{rate:.1%}" for name, rate in sorted(worst.items())}
    for row, name in enumerate(SUITES, start=JOINT_ROWS):
        go, plan = simulate_joint(load_suite(name), row=row)
        away = ERRORS * math.sqrt(max(plan * (1 - plan), 1 / JOINT_DRAWS) / JOINT_DRAWS)
        failed += abs(go - plan) > away
        values[f"suite {name}: GO of a candidate without loss, of {plan:.1%} planned"] = f"{go:.1%}"
    values["rows that differ from the plan"] = str(failed)
    for name, value in values.items():
        print(f"{name}: {value}")
    if arguments.record:
        ledger.append("How often the gate is wrong, worst rows", command=COMMAND, values=values)
    return int(failed > 0)


def _row(cell: Cell, rates: Rates, *, wrong: bool) -> str:
    task = cell.task
    asked = f"keep {task.recovery:.1%}" if task.recovery else f"lose {task.margin:.1%}"
    plan = "-" if rates.plan is None else f"{rates.plan:.1%}"
    cells_of_row = (
        cell.form,
        f"{task.items}",
        f"{task.flip_rate:.1%}",
        f"{task.design_effect:g} / {cell.effect:g}" if task.cluster else "",
        asked,
        f"{cell.drop:.2%}",
        f"{rates.go:.1%}",
        plan + (" DIFFERS" if wrong else ""),
        f"{1 - rates.go - rates.no_go:.1%}",
        f"{rates.no_go:.1%}",
    )
    return f"| {' | '.join(cells_of_row)} |"


def _errors(cell: Cell, rates: Rates) -> Iterator[tuple[str, float]]:
    """Yield the errors that a row shows, by name."""
    if cell.drop >= cell.limit - DUST:
        yield f"{cell.form}: false GO at a true loss of the margin or more", rates.go
    if not cell.drop:
        yield f"{cell.form}: false NO-GO without loss", rates.no_go


if __name__ == "__main__":
    sys.exit(main())
