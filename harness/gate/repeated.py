"""What items that are asked several times show beside pass@1; none of it decides.

Majority vote: of an item's answers, as the task's filter reads them, the commonest counts. Answers
that are equally common share the vote, so that no order of asking matters.

pass@k: how often at least one of k answers is right, estimated without bias from all n of an
item's, c of them right: 1 - C(n - c, k) / C(n, k).

Source of pass@k: M. Chen et al., "Evaluating large language models trained on code", arXiv
2107.03374, equation (1).
"""

from collections.abc import Sequence
from math import comb, sqrt
from typing import NamedTuple

from harness.artifacts import Estimate, Sample, by_item
from harness.gate.pairs import ItemPair, TaskPairs

_TYPICAL_SHIFT = 0.18
"""How much items differ in a candidate's losses, as a share of how much repeats of an item differ:
that of items at even odds whose log odds a candidate moves by one half (standard deviation)."""


class Variances(NamedTuple):
    """What a task with repeats is planned from: the fields of a TaskSpec with these names."""

    baseline_accuracy: float
    item_sd: float
    repeat_sd: float
    item_sd_is_assumed: bool
    """Whether no other model was there to measure it with."""


def estimate(task: TaskPairs) -> tuple[Estimate, ...]:
    """Return the majority vote and pass@k of both arms; nothing without repeats."""
    repeats = task.spec.repeats
    if repeats == 1 or not task.items:
        return ()
    sides = [[_of(item, index) for item in task.items] for index in (0, 1)]
    found = [_mean(f"majority of {repeats}", [[majority(a) for a in side] for side in sides])]
    if task.spec.value_range is None:
        chosen = sorted({2**power for power in range(1, repeats.bit_length())} | {repeats})
        found += [
            _mean(f"pass@{k}", [[pass_at(k, a) for a in side] for side in sides]) for k in chosen
        ]
    return tuple(found)


def majority(answers: Sequence[Sample]) -> float:
    """Return what the commonest of an item's answers scores; those equally common share it."""
    votes: dict[str, list[float]] = {}
    for answer in answers:
        votes.setdefault(answer.voted, []).append(answer.value)
    most = max(map(len, votes.values()))
    leading = [values for values in votes.values() if len(values) == most]
    return sum(sum(values) / most for values in leading) / len(leading)


def pass_at(k: int, answers: Sequence[Sample]) -> float:
    """Return how often one of k answers to an item is right, of all that could be chosen."""
    wrong = sum(answer.value < 1 for answer in answers)
    return 1 - comb(wrong, k) / comb(len(answers), k)


def variances_of(baseline: Sequence[Sample], candidate: Sequence[Sample] = ()) -> Variances:
    """Return what a task is planned from, measured on answers to repeated items.

    Repeats differ within an item by the answers' own chance, in both arms. How far items differ in
    what a candidate loses on them, only another model shows, such as an earlier candidate: without
    one a typical share of the repeats' spread is assumed.

    Args:
        baseline: samples of one task, each item at least twice.
        candidate: another model's samples of the same task, where there are any.

    Raises:
        ValueError: no item was answered twice.
    """
    items = [a for a in _known_by_item(baseline).values() if len(a) > 1]
    if not items:
        message = "no item was answered twice, so that nothing is known of how answers vary"
        raise ValueError(message)
    accuracy = sum(_mean_of(answers) for answers in items) / len(items)
    of_baseline = sum(_spread(answers) for answers in items) / len(items)
    others = _known_by_item(candidate)
    both = [(a, others[a[0].doc_id]) for a in items if len(others.get(a[0].doc_id, ())) > 1]
    if len(both) < 2:  # noqa: PLR2004  one item shows no spread
        repeat_sd = sqrt(2 * of_baseline)
        return Variances(accuracy, _TYPICAL_SHIFT * repeat_sd, repeat_sd, item_sd_is_assumed=True)
    noise = [_spread(a) / len(a) + _spread(b) / len(b) for a, b in both]
    shifts = [_mean_of(b) - _mean_of(a) for a, b in both]
    middle = sum(shifts) / len(shifts)
    seen = sum((shift - middle) ** 2 for shift in shifts) / (len(shifts) - 1)
    of_items = max(seen - sum(noise) / len(noise), 0.0)
    within = sum(_spread(a) + _spread(b) for a, b in both) / len(both)
    return Variances(accuracy, sqrt(of_items), sqrt(within), item_sd_is_assumed=False)


def _of(item: ItemPair, index: int) -> list[Sample]:
    return [pair[index] for pair in item.answers]


def _mean(name: str, sides: Sequence[Sequence[float]]) -> Estimate:
    baseline, candidate = (sum(side) / len(side) for side in sides)
    return Estimate(name=name, baseline=baseline, candidate=candidate)


def _known_by_item(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    return by_item(sample for sample in samples if sample.is_known)


def _mean_of(answers: Sequence[Sample]) -> float:
    return sum(answer.value for answer in answers) / len(answers)


def _spread(answers: Sequence[Sample]) -> float:
    """Return the variance of one answer to an item, estimated without bias."""
    mean = _mean_of(answers)
    return sum((answer.value - mean) ** 2 for answer in answers) / (len(answers) - 1)
