"""How one run of a candidate stands beside an earlier one, item by item: without any margin.

The verdict asks whether a loss is allowed. Here it is asked whether there is one: as a p value that
is exact (McNemar's, or the sign-flip test where items are no plain right or wrong, or grouped), and
as the difference beside its own spread, for whoever adds up many such comparisons. The spread is
the difference's standard deviation if every item, or group of items, were as likely to have changed
the other way: the root of the sum of their squares.

Only items that both runs answered count, matched by what they are and not by where they stand. An
answer of the later run that came too late is wrong.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.artifacts import Arm, Sample, Suite, TaskSpec
from harness.gate.claims import units_of
from harness.gate.comparable import identity
from harness.gate.mcnemar import p_worse
from harness.gate.pairs import TaskPairs, is_right_or_wrong, pair
from harness.gate.pooled import names_pooled
from harness.gate.ratio import ratio_of
from harness.gate.signflip import sign_flip_p

ALL_TASKS = "all tasks"
"""Name of the comparison over the items of all tasks."""


class Beside(NamedTuple):
    """A task of two runs."""

    difference: float
    """Later minus earlier; of a perplexity, minus the logarithm of the ratio."""
    spread: float
    """Its standard deviation if each item's sign were chance."""
    num_items: int
    num_lost: int
    num_won: int
    p_value: float
    """Of so many losses if the later run were no worse."""


def beside(suite: Suite, earlier: Arm, later: Arm) -> Mapping[str, Beside]:
    """Compare every task that both runs have answers to, and all of them together.

    Raises:
        SuiteError: a metric's value is none that the suite says.
    """
    paired = [_pair(spec, earlier, later) for spec in suite.tasks]
    known = [task for task in paired if _is_answered(task)]
    found = {task.spec.name: _of([task]) for task in known}
    pooled = [task for task in known if task.spec.name in names_pooled(suite)]
    if len(pooled) > 1:
        found[ALL_TASKS] = _of(pooled)
    return found


def _is_answered(task: TaskPairs) -> bool:
    return any(d.weight > 0 for d in task.documents) if task.is_perplexity else bool(task.items)


def _pair(spec: TaskSpec, earlier: Arm, later: Arm) -> TaskPairs:
    """Pair the items of one task that both runs were asked."""
    name = spec.name
    there = {tuple(identity(s).values()): s for s in later.samples.get(name, ())}
    both = [
        (sample, there[key])
        for sample in earlier.samples.get(name, ())
        if (key := tuple(identity(sample).values())) in there
    ]
    before = _with(earlier, name, [sample for sample, _ in both])
    after = _with(later, name, [sample for _, sample in both])
    return pair(spec, before, after)


def _with(arm: Arm, task: str, samples: Sequence[Sample]) -> Arm:
    return dataclasses.replace(arm, samples={task: tuple(samples)})


def _of(tasks: Sequence[TaskPairs]) -> Beside:
    if tasks[0].is_perplexity:
        return _of_perplexity(tasks[0])
    each = [d for task in tasks for d in task.differences(1.0)]
    units = [unit for task in tasks for unit in units_of(task, task.differences(1.0))]
    lost, won = sum(d < 0 for d in each), sum(d > 0 for d in each)
    is_plain = all(is_right_or_wrong(t.spec) and not t.spec.cluster for t in tasks)
    return Beside(
        difference=math.fsum(each) / len(each),
        spread=math.sqrt(math.fsum(unit.total**2 for unit in units)) / len(each),
        num_items=len(each),
        num_lost=lost,
        num_won=won,
        p_value=p_worse(lost, won) if is_plain else sign_flip_p(units),
    )


def _of_perplexity(task: TaskPairs) -> Beside:
    documents = [d for d in task.documents if d.weight > 0]
    words = math.fsum(d.weight for d in documents)
    return Beside(
        difference=ratio_of(documents),
        spread=math.sqrt(math.fsum(d.difference**2 for d in documents)) / words,
        num_items=len(documents),
        num_lost=sum(d.difference < 0 for d in documents),
        num_won=sum(d.difference > 0 for d in documents),
        p_value=sign_flip_p(units_of(task, [])),
    )
