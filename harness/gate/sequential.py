"""Looking at a critical task before all of it is answered, without being wrong more often.

A look may end a run in two ways, and never with GO, which is said once, of all items.

NO-GO, if the loss is proven. Whoever looks often and stops at the first proof is wrong more often
than one look is, so the chance of being wrong that the suite allows (`1 - confidence`) is spent
over the looks: after a share t of the items, 2 - 2 Phi(z / sqrt(t)) of it, with z the normal
quantile of half of it. That is next to nothing early and nearly all at the end. Each look may be
wrong as often as was spent since the one before: the chances add up to the suite's whatever the
looks have in common, and the last one pays little (of 5 %, 4.4 % are left).

Out of reach, if GO is not possible any more were everything else answered rightly. It is a fact and
no guess, so it spends nothing: a full run would not have ended GO. It is acted on from half of the
items on: until then a loss may still be proven, and NO-GO says more than that there is no GO.

Which items are asked first is drawn with the suite's seed, for a benchmark's order has a meaning.

Source: K. K. G. Lan, D. L. DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
70 (1983) 659-663, with the spending function that is like O'Brien and Fleming's. That increments
are spent by themselves (Bonferroni) and not jointly is ours: it needs no distribution of the looks.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from harness.artifacts import Sample, Suite, TaskSpec, Tier, WhyEnded
from harness.gate.comparable import identity
from harness.gate.forms import measure
from harness.gate.pairs import AnswerPair, Side, TaskPairs
from harness.gate.quantiles import z_of
from harness.gate.tango import tango_bounds

_SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Of the items, after which is looked."""
_LEAST_ITEMS = 8
_SETTLED = 1 / 2
"""Share of the items from which on a run ends for GO being out of reach."""


def looks_of(spec: TaskSpec) -> tuple[int, ...]:
    """Return after how many items of a task is looked, before the last one; none if advisory."""
    if spec.tier is not Tier.CRITICAL:
        return ()
    counts = (math.ceil(share * spec.items) for share in _SHARES)
    return tuple(sorted({count for count in counts if _LEAST_ITEMS <= count < spec.items}))


def spent(share: float, level: float) -> float:
    """Return how much of `level` may be spent when a share of the items is answered."""
    return 2 - 2 * NormalDist().cdf(z_of(1 - level / 2) / math.sqrt(share))


def confidence_of(spec: TaskSpec, looks: Sequence[int], asked: int, confidence: float) -> float:
    """Return the confidence of the bound that proves a loss.

    Args:
        spec: says how many items there are in all.
        looks: after how many items was looked before.
        asked: how many items are answered now.
        confidence: of the suite.
    """
    if not asked or (not looks and asked == spec.items):
        return confidence
    level = 1 - confidence
    before = spent(looks[-1] / spec.items, level) if looks else 0.0
    return 1 - (spent(asked / spec.items, level) - before)


def look(
    spec: TaskSpec,
    suite: Suite,
    baseline: Sequence[Sample],
    candidate: Sequence[Sample],
    looks: Sequence[int],
) -> WhyEnded | None:
    """Return why a critical task ends the run now, or None.

    Args:
        spec: the task.
        suite: says how sure the gate must be.
        baseline: its answers to all items.
        candidate: its answers to those that were asked; one to another question than the
            baseline's is unknown.
        looks: after how many items was looked before.
    """
    theirs = {(sample.doc_id, sample.repeat): sample for sample in baseline}
    ours = {
        key: sample
        for sample in candidate
        if (other := theirs.get(key := (sample.doc_id, sample.repeat)))
        and identity(sample) == identity(other)
    }
    known = _pairs(spec, [(theirs[key], sample) for key, sample in ours.items()])
    asked = len({sample.doc_id for sample in candidate})
    if not known.items:
        return None
    confidence = confidence_of(spec, looks, asked, suite.confidence)
    now = replace(known, spec=replace(spec, items=asked))
    if measure(now, confidence=confidence).is_beyond:
        return WhyEnded.INFERIOR
    if asked < _SETTLED * spec.items or (asked < spec.items and spec.relative_margin is not None):
        return None  # of a perplexity there is no best answer that the rest could have
    at_best = [(b, ours.get(k, replace(b, value=1.0, finish="stop"))) for k, b in theirs.items()]
    is_within = measure(_pairs(spec, at_best), confidence=suite.confidence).is_within
    return None if is_within else WhyEnded.OUT_OF_REACH


def items_to_decide(spec: TaskSpec, confidence: float) -> int:
    """Return after how many items a candidate that lost half of its accuracy is known to have."""
    margin = spec.margin or spec.relative_margin or (1 - spec.kept) * spec.baseline_accuracy
    looks: tuple[int, ...] = ()
    for asked in (*looks_of(spec), spec.items):
        lost = round(asked * spec.baseline_accuracy / 2)
        bound = tango_bounds(
            lost, 0, asked, confidence=confidence_of(spec, looks, asked, confidence)
        )
        if bound.high < -margin:
            return asked
        looks = (*looks, asked)
    return spec.items


def _pairs(spec: TaskSpec, answers: Sequence[tuple[Sample, Sample]]) -> TaskPairs:
    pairs = tuple(AnswerPair(*both) for both in answers)
    sides = Side("baseline", None, ()), Side("candidate", None, ())
    return TaskPairs(spec, sides, tuple(pair for pair in pairs if not pair.failed))
