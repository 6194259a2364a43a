"""What a perplexity's documents can decide, before there are any.

The mean difference by word is Student's around its true value, so the chance that its lower bound
is above a limit is one of the noncentral distribution: here the normal one, over the spread that a
standard error of so many documents has itself. Left out is what only widens a bound (skewness,
unequal lengths), so that real suites pass a little less often than planned.
"""

import math
from statistics import NormalDist

from harness.artifacts import TaskSpec
from harness.gate.quantiles import t_of
from harness.gate.ratio import MIN_DOCUMENTS

_NORMAL = NormalDist()
_LARGEST = 1.0
"""A rise of 100 %, more than a suite may allow."""


def chance_within(
    task: TaskSpec, allowed: float, confidence: float, *, difference: float = 0.0
) -> float:
    """Return how often a candidate is shown to be within a rise.

    Args:
        task: with its documents and the spread that is expected of them.
        allowed: logarithm of the ratio of perplexities that is allowed.
        confidence: of each bound.
        difference: minus the logarithm of the true ratio.
    """
    documents = _documents(task)
    if documents < MIN_DOCUMENTS:
        return 0.0
    errors = (allowed + difference) / _error(task, documents)
    quantile = t_of(confidence, documents - 1)
    return _NORMAL.cdf((errors - quantile) / _width(quantile, documents))


def least_rise(task: TaskSpec, confidence: float, *, power: float) -> float:
    """Return the smallest relative margin that a candidate without loss meets with `power`."""
    documents = _documents(task)
    if documents < MIN_DOCUMENTS:
        return _LARGEST
    quantile = t_of(confidence, documents - 1)
    errors = quantile + _NORMAL.inv_cdf(power) * _width(quantile, documents)
    return math.expm1(errors * _error(task, documents))


def _error(task: TaskSpec, documents: int) -> float:
    """Return the standard error that the gate will see: the jackknife's, which is a bit larger."""
    return task.spread / math.sqrt(documents) * documents / (documents - 1)


def _documents(task: TaskSpec) -> int:
    return task.clusters if task.cluster else task.items


def _width(quantile: float, documents: int) -> float:
    return math.sqrt(1 + quantile * quantile / (2 * (documents - 1)))
