"""What is judged of records that name no suite: every task that both arms have, with one margin.

Of a task's metrics the tool's first that is a number for each item counts; what is passed over is
said. Of a group of tasks whose members all have that metric the group counts, as it does for the
tool. A suite's file (--suite) chooses otherwise.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from statistics import fmean

from harness.artifacts import Suite, TaskSpec, Tier, digest_of
from harness.errors import IncomparableError, SuiteError
from harness.foreign.recorded import Metric, Recorded, RecordedTask

_CONFIDENCE = 0.95
_MAX_TRUNCATED = 0.02
_FLIPS = 0.05
"""Planning alone uses it, and what was answered is not planned."""


def suite_of_recorded(baseline: Recorded, candidate: Recorded, margin: float) -> Suite:
    """Return the suite of everything that both arms answered.

    Args:
        baseline: as its tool recorded it.
        candidate: likewise.
        margin: of every task, as a fraction of 1.

    Raises:
        SuiteError: the margin is no fraction, or no metric of a task can be judged.
        IncomparableError: the arms answered other tasks, or only parts of one.
    """
    if not 0 < margin < 1:
        message = f"margin {margin} is no fraction between 0 and 1. Type --margin 0.02 for 2 %."
        raise SuiteError(message)
    _check_same_tasks(baseline, candidate)
    _refuse_parts(baseline, candidate)
    specs = tuple(_specs(baseline, candidate, margin))
    return Suite(
        name=f"{baseline.tool}'s tasks",
        tasks=specs,
        max_model_len=1,
        apply_chat_template=False,
        seed=0,
        batch_size=1,
        confidence=_CONFIDENCE,
        max_truncated=_MAX_TRUNCATED,
        digest=digest_of(specs),
    )


def passed_over(recorded: Recorded, suite: Suite) -> tuple[str, ...]:
    """Return which numbers of each task were not judged."""
    lines = []
    for spec in suite.tasks:
        members = recorded.members(spec.asked)
        others = list(dict.fromkeys(m for t in members for m in t.metrics))
        left = [str(m) for m in others if m != Metric(spec.metric, spec.filter)]
        if left:
            judged = Metric(spec.metric, spec.filter)
            lines.append(f"{spec.name} was judged by {judged} alone, not by {', '.join(left)}")
    return tuple(lines)


def directions_of(recorded: Recorded, suite: Suite) -> Iterator[str]:
    """Say of which metrics less is better, and of which more was taken for better untold."""
    for spec in suite.tasks:
        members = recorded.members(spec.asked)
        what = f"of {Metric(spec.metric, spec.filter)} in {spec.name}"
        worst, best = spec.value_range or (0.0, 1.0)
        if worst > best:
            yield f"{what} less is better: {worst:g} counts as 0 % and {best:g} as 100 %"
        elif any(spec.metric not in task.higher_is_better for task in members):
            yield f"{what} more is taken for better: {recorded.tool} does not record it"


def _check_same_tasks(baseline: Recorded, candidate: Recorded) -> None:
    ours, theirs = ({task.name for task in arm.tasks} for arm in (baseline, candidate))
    for arm, own, other in (("baseline", ours, theirs), ("candidate", theirs, ours)):
        if missing := sorted(other - own):
            message = (
                f"the {arm} has no answers to task '{missing[0]}', which the other arm has. Score "
                "it too, or name with --suite what is to be judged."
            )
            raise IncomparableError(message)


def _refuse_parts(*arms: Recorded) -> None:
    for arm in arms:
        for task in arm.tasks:
            if task.left_out:
                message = (
                    f"task '{task.name}' in '{arm.place}': {task.left_out}. A part of a task is no "
                    "score of it: ask every item, or name a suite with so many items (--suite)."
                )
                raise IncomparableError(message)


def _specs(baseline: Recorded, candidate: Recorded, margin: float) -> Iterator[TaskSpec]:
    grouped: set[str] = set()
    for name in _outermost(baseline):
        arms = (baseline.members(name), candidate.members(name))
        spec = _spec(name, arms, margin) if all(arms) else None
        if spec is not None:
            grouped.update(task.name for task in arms[0])
            yield spec
    for task in baseline.tasks:
        if task.name not in grouped:
            spec = _spec(
                task.name, (baseline.members(task.name), candidate.members(task.name)), margin
            )
            if spec is None:
                raise SuiteError(_no_metric(task))
            yield spec


def _outermost(arm: Recorded) -> list[str]:
    """Return the groups that are in no other, the largest first."""
    by_size = sorted(arm.groups, key=lambda name: -len(arm.groups[name]))
    chosen: list[str] = []
    for name in by_size:
        if not any(set(arm.groups[name]) & set(arm.groups[other]) for other in chosen):
            chosen.append(name)
    return chosen


def _spec(
    name: str, arms: tuple[Sequence[RecordedTask], Sequence[RecordedTask]], margin: float
) -> TaskSpec | None:
    """Return what is asked of a task or a group; None where its members share no metric.

    A metric of which less is better counts from 1, the worst, to 0.
    """
    chosen = {_first_metric(task) for task in arms[0]}
    metric = chosen.pop()
    if chosen or metric is None:
        return None
    rises = {task.higher_is_better.get(metric.name, True) for task in arms[0]}
    if len(rises) > 1:
        return None
    values = [answer.values.get(metric) for arm in arms for task in arm for answer in task.answers]
    items = sum(task.num_items for task in arms[0])
    is_plain = all(value in (0, 1) for value in values)
    spec = TaskSpec(
        name=name,
        tier=Tier.CRITICAL,
        metric=metric.name,
        filter=metric.filter,
        items=items,
        margin=margin,
        flip_rate=_FLIPS,
        num_fewshot=0,
        chance=fmean(task.chance for task in arms[0]) if rises == {True} else 0.0,
        repeats=sum(len(task.answers) for task in arms[0]) // items if items else 1,
    )
    if rises == {False}:
        return dataclasses.replace(spec, value_range=(1.0, 0.0))
    return spec if is_plain else dataclasses.replace(spec, value_range=(0.0, 1.0))


def _first_metric(task: RecordedTask) -> Metric | None:
    """Return the first metric that is one number an item, judged by the first item."""
    first = task.answers[0].values if task.answers else {}
    numbers = (m for m in task.metrics if isinstance(first.get(m), bool | int | float | None))
    return next(numbers, None)


def _no_metric(task: RecordedTask) -> str:
    if not task.answers:
        return f"task '{task.name}' has no answers. Score it again."
    metric = task.metrics[0] if task.metrics else None
    found = task.answers[0].values.get(metric) if metric else None
    return (
        f"task '{task.name}' has no metric that is one number for each item: {metric} of item "
        f"{task.answers[0].item} is {found!r:.40}. What is computed over all items together cannot "
        "be paired; score with a metric for each item."
    )
