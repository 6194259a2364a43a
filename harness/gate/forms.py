"""What a task asks for, as one number for each item, and how the mean of these numbers is bounded.

With a margin the number is `candidate - baseline`, and its mean must lie above minus the margin.
With a recovery r it is `candidate - r x baseline`, and its mean must lie above 0: the ratio of the
accuracies, without dividing by a noisy one. Both means get a score interval; for lost and won items
alone there is a closed form (`tango`).

An item that is asked several times is one number too, the mean over its answers: so its repeats
narrow the interval only as far as they tell more of the item, and whatever their number the
interval keeps the width of an event that none of the items showed.

A perplexity is asked for by document: `ratio` bounds the difference of all log-likelihoods over all
words, whose mean must lie above minus the logarithm of what is allowed.

Values between 0 and 1 may be skewed, so the sign-flip permutation's interval is made too, and the
wider one counts. Grouped items widen every interval (`clusters`).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from harness.artifacts import Ratio, Recovery, Sample, TaskSpec, by_item
from harness.gate.clusters import group_up, quantile_of
from harness.gate.mean import Range, exceeds, mean_bounds
from harness.gate.outlook import allowed_by, limit_of
from harness.gate.pairs import TaskPairs
from harness.gate.ratio import NOTHING, Weighted, ratio_bounds, ratio_of, spread_seen, sum_up
from harness.gate.signflip import Cluster, sign_flip_bounds
from harness.gate.tango import Bounds, tango_bounds

_RATIO = "Student's interval of a ratio estimator over documents"
_MOST_POWER = 700.0
"""Of e: larger ratios are not told apart."""
_HALVINGS = 40
_MOST_RECOVERED = 10.0
"""Larger ratios are not told apart."""


class Measured(NamedTuple):
    """What a task's answers show, of the mean of `candidate - kept x baseline`."""

    bounds: Bounds
    limit: float
    """The mean must lie above it."""
    best_high: float
    """Upper bound if every unknown item had been won."""
    method: str
    num_clusters: int | None

    @property
    def is_within(self) -> bool:
        """Whether the loss is shown to be allowed."""
        return self.bounds.low > self.limit

    @property
    def is_beyond(self) -> bool:
        """Whether the loss is shown not to be, whatever the unknown answers are."""
        return self.best_high < self.limit


def measure(task: TaskPairs, *, confidence: float) -> Measured:
    """Bound what the task asks for; it has at least one pair."""
    limit = limit_of(task.spec, allowed_by(task.spec))
    if task.is_plain:
        return _plain(task, limit, confidence)
    if task.is_perplexity:
        return _perplexity(task, limit, confidence)
    values = task.differences(task.spec.kept)
    groups, quantile = _grouping(task, values, confidence)
    bounds = _bounds(task, values, groups, quantile=quantile, confidence=confidence)
    best = bounds
    if task.num_unknown or task.num_late:
        at_best = task.best_differences(task.spec.kept)
        won = [*at_best, *[1.0] * task.num_unknown]
        alone = None
        if groups is not None:
            known = group_up(at_best, task.clusters)
            alone = [*known, *[Cluster(1.0, 1)] * task.num_unknown]
        best = _bounds(task, won, alone, quantile=quantile, confidence=confidence)
    num_clusters = None if groups is None else len(groups)
    return Measured(bounds, limit, best.high, _method(task, num_clusters), num_clusters)


def _perplexity(task: TaskPairs, limit: float, confidence: float) -> Measured:
    documents = task.documents
    if not any(d.weight for d in documents):
        return Measured(NOTHING, limit, math.inf, _RATIO, None)
    bounds = ratio_bounds(documents, confidence=confidence)
    best_high = bounds.high
    if task.num_unknown:
        gained = _at_best(task)
        known = [*documents, *(gained or ())]
        best_high = ratio_bounds(known, confidence=confidence).high if gained else math.inf
    num_clusters = len(documents) if task.spec.cluster else None
    method = _RATIO if num_clusters is None else f"{_RATIO}, over {num_clusters} clusters"
    return Measured(bounds, limit, best_high, method, num_clusters)


def _at_best(task: TaskPairs) -> list[Weighted] | None:
    """Return the unknown documents as if the candidate were certain of every word of them.

    None where the baseline's own log-likelihood is unknown: then nothing bounds the gain.
    """
    baseline, candidate = (side.samples for side in task.sides)
    both = zip(baseline, candidate, strict=False)
    failed = [left for left, right in both if not (left.is_known and right.is_known)]
    if len(failed) != task.num_unknown or not all(s.is_known for s in failed):
        return None
    return [Weighted(-s.value, s.weight or 0.0) for s in failed]


def ratio_noun(task: TaskPairs, measured: Measured) -> Ratio | None:
    """Return the candidate's perplexity over the baseline's, where the task asks for one.

    None too where nothing is shown.
    """
    if not task.is_perplexity or math.isinf(measured.bounds.low):
        return None
    ends = (ratio_of(task.documents), measured.bounds.high, measured.bounds.low)
    observed, low, high = (math.exp(min(-end, _MOST_POWER)) for end in ends)
    return Ratio(
        allowed=math.exp(-measured.limit),
        observed=observed,
        low=low,
        high=high,
        spread=spread_seen(task.documents),
    )


def recovery_of(task: TaskPairs, *, confidence: float) -> Recovery | None:
    """Return the ratio of the accuracies with its bounds, where the task asks for one."""
    right = sum(item.baseline for item in task.items)
    if task.spec.recovery is None or not right:
        return None
    _, quantile = _grouping(task, task.differences(task.spec.kept), confidence)
    observed = sum(item.candidate for item in task.items) / right
    return Recovery(
        required=task.spec.recovery,
        observed=observed,
        low=_ratio(task, 0.0, observed, quantile),
        high=_ratio(task, max(_MOST_RECOVERED, observed), observed, quantile),
    )


def _grouping(
    task: TaskPairs, values: Sequence[float], confidence: float
) -> tuple[Sequence[Cluster] | None, float]:
    """Return the clusters, None where items are independent, and the interval's quantile."""
    groups = group_up(values, task.clusters) if task.spec.cluster else None
    least = task.spec.design_effect
    return groups, quantile_of(Counter(values), groups, confidence=confidence, least=least)


def _plain(task: TaskPairs, limit: float, confidence: float) -> Measured:
    lost, won, items = len(task.lost), len(task.won), len(task.items)
    unknown, at_best = task.num_unknown, Counter(task.best_differences(1.0))
    best = tango_bounds(
        at_best[-1.0], at_best[1.0] + unknown, items + unknown, confidence=confidence
    )
    bounds = tango_bounds(lost, won, items, confidence=confidence)
    return Measured(bounds, limit, best.high, "Tango's score interval", None)


def _bounds(
    task: TaskPairs,
    values: Sequence[float],
    groups: Sequence[Cluster] | None,
    *,
    quantile: float,
    confidence: float,
) -> Bounds:
    score = mean_bounds(Counter(values), Range(-task.spec.kept, 1.0), quantile=quantile)
    if task.spec.value_range is None:
        return score
    units = [Cluster(value, 1) for value in values] if groups is None else groups
    flips = sign_flip_bounds(units, confidence=confidence)
    return Bounds(min(score.low, flips.low), max(score.high, flips.high))


def _ratio(task: TaskPairs, end: float, observed: float, quantile: float) -> float:
    """Return the ratio between `end` and `observed` from which on no test rejects."""
    rejected, kept = end, observed
    for _ in range(_HALVINGS):
        ratio = (rejected + kept) / 2
        sign = 1.0 if end < observed else -1.0
        counts = Counter(sign * value for value in task.differences(ratio))
        lowest = -ratio if sign > 0 else -1.0
        if exceeds(counts, 0.0, lowest=lowest, quantile=quantile):
            rejected = ratio
        else:
            kept = ratio
    return kept


def _method(task: TaskPairs, num_clusters: int | None) -> str:
    name = "score interval of a mean"
    if task.spec.recovery is not None:
        name = f"score interval of candidate - {task.spec.recovery:g} x baseline"
    if task.spec.value_range is not None:
        name += ", or the sign-flip permutation's where that is wider"
    if task.spec.repeats > 1:
        name += (
            f", over {len(task.items)} items, each the mean of {task.spec.repeats} answers "
            "(clustered by item)"
        )
    return name if num_clusters is None else f"{name}, over {num_clusters} clusters"


def baseline_low(task: TaskPairs, *, confidence: float) -> float:
    """Return the lower bound of the baseline's score, on the items that both arms answered."""
    answers = [pair.baseline for item in task.items for pair in item.answers]
    return bounds_of_own(task.spec, answers, confidence=confidence).low if answers else 0.0


def bounds_of_own(spec: TaskSpec, answers: Sequence[Sample], *, confidence: float) -> Bounds:
    """Return the one-sided bounds of one arm's own score.

    Of items it is that of their mean (Wilson's, if they are right or wrong), as a share; of a
    perplexity, of its mean log-likelihood. Groups of items are no more evidence than they are in
    a difference.

    Args:
        spec: says what the answers are, and whether they are grouped.
        answers: all of them known, at least one.
        confidence: of each bound.
    """
    if spec.relative_margin is not None:
        return ratio_bounds(_texts(spec, answers), confidence=confidence)
    items = [[a] for a in answers] if spec.repeats == 1 else list(by_item(answers).values())
    means = [math.fsum(a.value for a in item) / len(item) for item in items]
    clusters = [item[0].cluster for item in items]
    groups = group_up(means, clusters) if spec.cluster else None
    counts = Counter(means)
    least = spec.design_effect
    quantile = quantile_of(counts, groups, confidence=confidence, least=least)
    return mean_bounds(counts, Range(0.0, 1.0), quantile=quantile)


def _texts(spec: TaskSpec, answers: Sequence[Sample]) -> list[Weighted]:
    """Return one arm's documents; those of a cluster are one."""
    each = [Weighted(answer.value, answer.weight or 0.0) for answer in answers]
    return sum_up(each, [answer.cluster for answer in answers]) if spec.cluster else each
