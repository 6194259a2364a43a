"""Two arms' answers beside each other: paired only where the question was the same.

A question is the same where its item, its prompt and its target are, to the hash. Scores of one
task may stand beside each other and still not be comparable: asked otherwise, or of other items.
Then both are shown, and the line says why no difference is.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.artifacts import Arm, FlippedItem, Sample, Scale, TaskDifference, TaskScore
from harness.gate import difference_bounds

_CONFIDENCE = 0.95
_ONLY = {"a": "only A was asked it", "b": "only B was asked it"}


class Compared(NamedTuple):
    """One task of both arms."""

    difference: TaskDifference
    flips: tuple[FlippedItem, ...]


class _Key(NamedTuple):
    """What makes two questions the same one."""

    doc_hash: str
    prompt_hash: str
    target_hash: str
    repeat: int
    copy: int
    """How many of the same came before: data sets hold an item twice."""


def compare_arms(a: Arm | None, b: Arm | None) -> tuple[Compared, ...]:
    """Compare each task that at least one of the arms was asked."""
    left, right = _scores(a), _scores(b)
    return tuple(_compare(task, a, b) for task in dict.fromkeys((*left, *right)))


def choose_flips(compared: Sequence[Compared], most: int) -> tuple[FlippedItem, ...]:
    """Return at most so many flips: lost ones first, and each task in turn so that none hides."""
    ranked = [
        (not flip.lost, rank, flip)
        for one in compared
        for lost in (True, False)
        for rank, flip in enumerate(f for f in one.flips if f.lost is lost)
    ]
    return tuple(flip for _, _, flip in sorted(ranked, key=lambda entry: entry[:2])[:most])


def _scores(arm: Arm | None) -> dict[str, TaskScore]:
    return {} if arm is None else {score.task: score for score in arm.scorecard.tasks}


def _compare(task: str, a: Arm | None, b: Arm | None) -> Compared:
    left, right = _scores(a).get(task), _scores(b).get(task)
    nothing = TaskDifference(
        task=task,
        a=left.value if left else None,
        b=right.value if right else None,
        num_items=0,
        num_lost=0,
        num_won=0,
        num_reworded=0,
        difference=None,
        low=None,
        high=None,
        scale=next((s.scale for s in (left, right) if s), Scale.SHARE),
    )
    if a is None or b is None or left is None or right is None:
        return _unpaired(nothing, _ONLY["a" if left else "b"])
    if (left.metric, left.scale) != (right.metric, right.scale):
        return _unpaired(nothing, f"not comparable: {left.metric} in A, {right.metric} in B")
    samples = a.samples.get(task, ()), b.samples.get(task, ())
    if not all(samples):
        gone = " and ".join(n for n, s in zip("AB", samples, strict=True) if not s)
        return _unpaired(nothing, f"not paired: the answers of {gone} are gone")
    return _pair(nothing, *map(_keyed, samples), asked=_asked_otherwise(task, a, b))


def _unpaired(found: TaskDifference, note: str) -> Compared:
    return Compared(dataclasses.replace(found, note=note), ())


def _asked_otherwise(task: str, a: Arm, b: Arm) -> list[str]:
    """Name the generation arguments of a task that differ."""
    left, right = (json.loads(arm.scorecard.generation.get(task, "{}")) for arm in (a, b))
    names = sorted(k for k in left.keys() | right.keys() if left.get(k) != right.get(k))
    return [f"asked otherwise: {', '.join(names)}"] if names else []


def _pair(
    found: TaskDifference,
    left: Mapping[_Key, Sample],
    right: Mapping[_Key, Sample],
    *,
    asked: list[str],
) -> Compared:
    pairs = [(left[key], right[key]) for key in left if key in right]
    known = [(x, y) for x, y in pairs if x.is_known and y.is_known]
    notes = [*asked, *_coverage(len(left), len(right), len(pairs), len(known))]
    found = dataclasses.replace(found, num_items=len(known), note="; ".join(notes))
    if not known or known[0][0].weight is not None:
        return Compared(found, ())  # log-likelihoods hardly ever agree: nothing flips
    lost = [(x, y) for x, y in known if x.value > y.value]
    won = [(x, y) for x, y in known if x.value < y.value]
    compared = dataclasses.replace(
        _bounded(found, known),
        num_lost=len(lost),
        num_won=len(won),
        num_reworded=sum(x.value == y.value and x.answer != y.answer for x, y in known),
    )
    return Compared(compared, tuple(_flip(found.task, x, y) for x, y in (*lost, *won)))


def _coverage(num_a: int, num_b: int, num_pairs: int, num_known: int) -> Iterator[str]:
    """Say which part of the questions is compared, where it is not all of both."""
    if not num_pairs:
        yield "not comparable: no question is the same in both"
    elif num_pairs < max(num_a, num_b):
        yield (
            f"{num_pairs} questions are the same, of {num_a} in A and {num_b} in B: the scores are "
            "of other items, the difference is of these alone"
        )
    if num_known < num_pairs:
        yield f"{num_pairs - num_known} not compared, for a request failed"


def _bounded(found: TaskDifference, pairs: Sequence[tuple[Sample, Sample]]) -> TaskDifference:
    """Return the difference with its bounds; answers to one question are one item."""
    items: dict[tuple[str, str, str], list[float]] = {}
    for a, b in pairs:
        key = (a.cluster, a.doc_hash, f"{a.doc_id}")
        items.setdefault(key, []).append(b.value - a.value)
    means = [math.fsum(each) / len(each) for each in items.values()]
    bounds = difference_bounds(means, [key[0] for key in items], confidence=_CONFIDENCE)
    return dataclasses.replace(
        found,
        difference=math.fsum(means) / len(means),
        low=bounds.low if bounds else None,
        high=bounds.high if bounds else None,
    )


def _keyed(samples: Sequence[Sample]) -> dict[_Key, Sample]:
    found: dict[_Key, Sample] = {}
    for sample in samples:
        key = _Key(sample.doc_hash, sample.prompt_hash, sample.target_hash, sample.repeat, 0)
        while key in found:
            key = key._replace(copy=key.copy + 1)
        found[key] = sample
    return found


def _flip(task: str, a: Sample, b: Sample) -> FlippedItem:
    return FlippedItem(
        task=task,
        doc_id=a.doc_id,
        prompt=a.prompt,
        target=a.target,
        a=a.answer,
        b=b.answer,
        lost=a.value > b.value,
    )
