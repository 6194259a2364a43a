"""Whether the candidate's answers are as long as the baseline's, in tokens.

A quantized model that thinks twice as long costs twice as much, and often answers as well as ever,
so no score shows it. For each item the logarithm of the ratio candidate / baseline is taken (of an
item that was answered several times, their mean), and the mean of the logarithms is bounded: the
geometric mean of the ratios must lie within 1 / (1 + band) and 1 + band.

The bounds are the wider of two. Student's of the mean holds for ratios that are much alike; where
most answers keep their length and a few run on, it is far too narrow and would call one case in
three within the band that is not. The score interval of a mean (`mean`) holds there, and keeps an
honest width where no length changed at all: it takes for possible what was not seen, an answer of
eight times the length or an eighth of it. How often both err: `python -m scripts.simulate_length`.

An answer that was cut at its budget would have been longer, nobody knows by how much. It is taken
for as long as seen up to twice as long, whatever is worse for what is to be shown. So a rise of cut
answers can forbid `within` and never hide what is longer. An item whose tokens are unknown may be
of any length between an eighth and eight times the baseline's.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from harness.artifacts import (
    Band,
    Decision,
    LengthVerdict,
    Sample,
    Standing,
    Suite,
    TaskVerdict,
    Tier,
)
from harness.errors import ReasonCode
from harness.gate.clusters import group_up, quantile_of
from harness.gate.mean import Range, mean_bounds
from harness.gate.objections import Objection
from harness.gate.pairs import ItemPair, TaskPairs
from harness.gate.quantiles import t_of
from harness.gate.tango import Bounds

UNSEEN = math.log(8)
"""Largest change of an answer's length that is taken for possible though it was not seen."""
_CUT = math.log(2)
"""By how much an answer that was cut may be longer than it was seen."""
_READ = {"scored", "error", "timeout"}
"""How the requests of a task end that generates nothing."""


class Change(NamedTuple):
    """How the length of one item's answers changed, as the logarithm of the ratio."""

    seen: float
    least: float
    """If what was cut of the baseline's answers had been longest."""
    most: float
    """If what was cut of the candidate's had been."""
    cluster: str


def length_of(task: TaskPairs, suite: Suite) -> LengthVerdict | None:
    """Compare the lengths of one task's answers; None where none was counted in both arms."""
    band = task.spec.length or suite.length
    least_effect = task.spec.design_effect if task.spec.cluster else None
    num_unknown = max(task.spec.items - len(_counted(task)), 0)
    return _verdict([task], band, _Certainty(suite.confidence, least_effect, num_unknown))


def length_of_all(paired: Sequence[TaskPairs], suite: Suite) -> LengthVerdict | None:
    """Compare the lengths of all tasks' answers, each item with the same weight.

    Several metrics of one task have the same answers, which count once.
    """
    paired = tuple({task.spec.asked: task for task in paired}.values())
    is_grouped = any(task.spec.cluster for task in paired)
    certainty = _Certainty(suite.confidence, 1.0 if is_grouped else None, 0)
    return _verdict(paired, Band(band=suite.length.band), certainty)


def length_objections(
    paired: Sequence[TaskPairs], tasks: Sequence[TaskVerdict], suite: Suite
) -> Iterator[Objection]:
    """Yield what the lengths of answers say against a GO."""
    for pairs, task in zip(paired, tasks, strict=True):
        tier = (pairs.spec.length or suite.length).tier
        found = task.length
        if found is None:
            if tier is Tier.CRITICAL and _may_be_generated(pairs):
                message = f"{task.task}: the tokens of its answers were not counted in both arms"
                yield Objection(ReasonCode.NOT_ENOUGH_EVIDENCE, Decision.INCONCLUSIVE, message)
        elif tier is Tier.CRITICAL and found.standing is not Standing.WITHIN:
            beyond = found.standing is Standing.BEYOND
            decision = Decision.NO_GO if beyond else Decision.INCONCLUSIVE
            yield Objection(found.reason, decision, f"{task.task}: {found.message}")
        elif found.standing is Standing.BEYOND:
            yield Objection(found.reason, Decision.GO, f"{task.task}: {found.message}")


class _Certainty(NamedTuple):
    """What decides how wide the bounds are, beside the values."""

    confidence: float
    least_effect: float | None
    """Design effect that is taken for granted; None where items are independent."""
    num_unknown: int
    """Items whose lengths nobody knows."""


def _verdict(tasks: Sequence[TaskPairs], band: Band, certainty: _Certainty) -> LengthVerdict | None:
    known = [(task, item) for task in tasks for item in _counted(task)]
    if not known:
        return None
    changes = [_change_of(item, task.spec.name) for task, item in known]
    bounds = bounds_of(changes, certainty.confidence, certainty.least_effect)
    if certainty.num_unknown:
        bounds = _widened(changes, certainty)
    limit = math.log1p(band.band)
    standing, reason = _stand(bounds, limit)
    pairs = [pair for _, item in known for pair in item.answers]
    ours, theirs = [p.baseline for p in pairs], [p.candidate for p in pairs]
    found = LengthVerdict(
        tier=band.tier,
        band=band.band,
        num_items=len(changes),
        baseline=_mean(ours),
        candidate=_mean(theirs),
        ratio=math.exp(fmean(change.seen for change in changes)),
        low=math.exp(bounds.low),
        high=math.exp(bounds.high),
        num_cut_baseline=_num_cut(ours),
        num_cut_candidate=_num_cut(theirs),
        standing=standing,
        reason=reason,
        message="",
        baseline_thoughts=_mean_thoughts(ours),
        candidate_thoughts=_mean_thoughts(theirs),
    )
    return dataclasses.replace(found, message=_message(found))


def _change_of(item: ItemPair, task: str) -> Change:
    """Return the change of an item, the mean of its answers where it was asked several times."""
    mean = fmean(math.log(_tokens(p.candidate) / _tokens(p.baseline)) for p in item.answers)
    cut_before = fmean(p.baseline.is_cut for p in item.answers)
    cut_after = fmean(p.candidate.is_cut for p in item.answers)
    first = item.answers[0].baseline
    cluster = f"{task} {first.cluster or first.doc_id}"
    return Change(mean, mean - _CUT * cut_before, mean + _CUT * cut_after, cluster=cluster)


def bounds_of(
    changes: Sequence[Change], confidence: float, least_effect: float | None = None
) -> Bounds:
    """Return the one-sided bounds of the mean change.

    Args:
        changes: of each item, at least one.
        confidence: of each bound.
        least_effect: design effect of the clusters at least; None where items are independent.
    """
    clusters = None if least_effect is None else [change.cluster for change in changes]
    effect = least_effect or 1.0
    low = _bounds([change.least for change in changes], clusters, confidence, effect)
    if all(change.least == change.most for change in changes):
        return low
    high = _bounds([change.most for change in changes], clusters, confidence, effect)
    return Bounds(low.low, high.high)


def _bounds(
    values: Sequence[float], clusters: Sequence[str] | None, confidence: float, effect: float
) -> Bounds:
    within = Range(min(-UNSEEN, *values), max(UNSEEN, *values))
    counts = Counter(values)
    quantile = t_of(confidence, len(values) - 1)
    if clusters is not None:
        groups = group_up(values, clusters)
        quantile = quantile_of(counts, groups, confidence=confidence, least=effect)
    if not math.isfinite(quantile):
        return Bounds(within.lowest, within.highest)
    score = mean_bounds(counts, within, quantile=quantile)
    mean, half = fmean(values), quantile * stdev(values) / math.sqrt(len(values))
    return Bounds(min(score.low, mean - half), max(score.high, mean + half))


def _widened(changes: Sequence[Change], certainty: _Certainty) -> Bounds:
    """Return the bounds if items of unknown length were as short, and as long, as may be."""
    unknown = [
        Change(0.0, -UNSEEN, UNSEEN, cluster=f"unknown {number}")
        for number in range(certainty.num_unknown)
    ]
    return bounds_of([*changes, *unknown], certainty.confidence, certainty.least_effect)


def _stand(bounds: Bounds, limit: float) -> tuple[Standing, ReasonCode]:
    if bounds.low > limit:
        return Standing.BEYOND, ReasonCode.ANSWERS_LONGER
    if bounds.high < -limit:
        return Standing.BEYOND, ReasonCode.ANSWERS_SHORTER
    if bounds.low > -limit and bounds.high < limit:
        return Standing.WITHIN, ReasonCode.NON_INFERIOR
    return Standing.UNCLEAR, ReasonCode.NOT_ENOUGH_EVIDENCE


def _message(found: LengthVerdict) -> str:
    text = (
        f"answers are {found.ratio:.3f} times as long, between {found.low:.3f} and "
        f"{found.high:.3f} on {found.num_items} items, where {1 / (1 + found.band):.3f} to "
        f"{1 + found.band:.3f} are allowed"
    )
    if found.num_cut_baseline or found.num_cut_candidate:
        text += (
            f"; {found.num_cut_candidate} of the candidate's and {found.num_cut_baseline} of the "
            "baseline's were cut at the budget"
        )
    return text


def _counted(task: TaskPairs) -> list[ItemPair]:
    """Return the items of which the tokens of every answer are known in both arms."""
    return [
        item
        for item in task.items
        if all(p.baseline.num_tokens and p.candidate.num_tokens for p in item.answers)
    ]


def _may_be_generated(task: TaskPairs) -> bool:
    """Return whether a task's answers have a length; where no answer tells, they may have one."""
    finishes = {sample.finish for side in task.sides for sample in side.samples}
    return not task.is_perplexity and ("scored" not in finishes or not finishes <= _READ)


def _tokens(sample: Sample) -> int:
    return sample.num_tokens or 1


def _mean(samples: Sequence[Sample]) -> float:
    return fmean(_tokens(sample) for sample in samples)


def _mean_thoughts(samples: Sequence[Sample]) -> float | None:
    known = [s.num_thought_tokens for s in samples if s.num_thought_tokens is not None]
    return fmean(known) if known else None


def _num_cut(samples: Sequence[Sample]) -> int:
    return sum(sample.is_cut for sample in samples)
