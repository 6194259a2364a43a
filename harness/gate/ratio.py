"""How much likelier one arm finds a text than the other: bounds of a ratio estimator.

Of each document both arms' log-likelihoods are known, and its words (bytes, targets). What is asked
is the difference of all log-likelihoods over the number of all words: minus the logarithm of the
candidate's perplexity over the baseline's. Documents are the units, for the words of one are read
by one model in one go; long ones weigh more, as in the score itself.

The bound is Student's of the ratio estimator, with three cautions that each only widen it:

- a residual (a document's difference less the ratio times its words) is divided by 1 - its share
  of the words, as the jackknife does, for a document that dominates pulls the ratio to itself;
- the degrees of freedom are those of as many documents of one length: (sum w)^2 / sum w^2, less 1;
- a few documents that lose much make the mean look better and the spread smaller than they are, so
  the quantile is Hall's for the skewness that is seen, where that is the wider one.

Under MIN_DOCUMENTS nothing is shown. `python -m scripts.simulate_perplexity` prints how often GO
comes at the margin.

Sources: W. G. Cochran, Sampling Techniques, chapter 6, of the estimator; J. N. K. Rao, Biometrika
52 (1965) 647-649, of its jackknife; P. Hall, "On the removal of skewness by transformation",
Journal of the Royal Statistical Society B 54 (1992) 221-228.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.gate.quantiles import t_of
from harness.gate.tango import Bounds

MIN_DOCUMENTS = 10
"""Fewer were not simulated, and two that agree by chance would show anything."""
NOTHING = Bounds(-math.inf, math.inf)


class Weighted(NamedTuple):
    """The difference of a document's log-likelihoods, candidate minus baseline, and its weight."""

    difference: float
    weight: float


class _Spread(NamedTuple):
    """How uncertain a ratio is."""

    error: float
    """Its standard error."""
    skewness: float
    """Of the ratio, of its residuals over the root of their number."""
    degrees: int


def sum_up(documents: Sequence[Weighted], clusters: Sequence[str]) -> list[Weighted]:
    """Return one document for each cluster: all that its documents hold."""
    groups: dict[str, list[Weighted]] = {}
    for cluster, one in zip(clusters, documents, strict=True):
        groups.setdefault(cluster, []).append(one)
    return [Weighted(*map(math.fsum, zip(*group, strict=True))) for group in groups.values()]


def ratio_of(documents: Sequence[Weighted]) -> float:
    """Return the difference for each word, over all documents; their words are more than none."""
    return math.fsum(d.difference for d in documents) / math.fsum(d.weight for d in documents)


def ratio_bounds(documents: Sequence[Weighted], *, confidence: float) -> Bounds:
    """Return the one-sided bounds of the difference for each word."""
    weighing = [d for d in documents if d.weight > 0]
    if len(weighing) < MIN_DOCUMENTS:
        return NOTHING
    ratio, spread = ratio_of(documents), _spread_of(documents)
    quantile = t_of(confidence, spread.degrees)
    below = max(quantile, _unskewed(quantile, spread.skewness))
    above = max(quantile, _unskewed(quantile, -spread.skewness))
    return Bounds(ratio - below * spread.error, ratio + above * spread.error)


def spread_seen(documents: Sequence[Weighted]) -> float:
    """Return the spread of documents as a suite states it for its plan."""
    return _spread_of(documents).error * math.sqrt(len(documents))


def _spread_of(documents: Sequence[Weighted]) -> _Spread:
    ratio, words = ratio_of(documents), math.fsum(d.weight for d in documents)
    shares = [d.weight / words for d in documents]
    residuals = [
        (d.difference - ratio * d.weight) / max(1 - share, 1 / words)
        for d, share in zip(documents, shares, strict=True)
    ]
    squares = math.fsum(r * r for r in residuals)
    alike = 1 / math.fsum(share * share for share in shares)
    number = len(documents)
    return _Spread(
        error=math.sqrt(squares * number / (number - 1)) / words,
        skewness=math.fsum(r**3 for r in residuals) / squares**1.5 if squares else 0.0,
        degrees=math.floor(alike - 1 + 1e-9),
    )


def _unskewed(quantile: float, skewness: float) -> float:
    """Return the quantile of a studentized mean whose values are skewed; Hall's, inverted."""
    if not skewness or math.isinf(quantile):
        return quantile
    return 3 / skewness * (math.cbrt(1 + skewness * (quantile - skewness / 6)) - 1)
