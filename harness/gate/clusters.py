"""Items that come in groups, such as the questions of one subject or about one passage.

Items of a group fail together, so they carry less evidence than as many independent items. The
design effect says how much less: the variance of the mean with whole groups as units, over the
variance if all items were independent. A score interval of grouped items is made with a wider
quantile: Student's for the number of groups, times the square root of the design effect. It keeps
its shape, and its width at zero flips.

The design effect that is used is never below 1, nor below what the suite states from earlier
measurements: a few flips cannot show one, and chance can make it look small.

Source: E. Miller, "Adding error bars to evals", arXiv 2411.00640, equation (4), with the factor
G / (G - 1) for G groups.
"""

import math
from collections.abc import Mapping, Sequence

from harness.gate.quantiles import t_of, z_of
from harness.gate.signflip import Cluster


def group_up(values: Sequence[float], clusters: Sequence[str]) -> tuple[Cluster, ...]:
    """Return the sum and the number of items of each cluster."""
    totals: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        totals.setdefault(cluster, []).append(value)
    return tuple(Cluster(math.fsum(members), len(members)) for members in totals.values())


def design_effect(counts: Mapping[float, int], groups: Sequence[Cluster]) -> float:
    """Return by how much grouping widens the variance of the values' mean; 1 if unknown.

    Args:
        counts: how often each value was seen.
        groups: the same items by cluster.
    """
    items = sum(counts.values())
    mean = math.fsum(value * count for value, count in counts.items()) / items
    alone = math.fsum(count * (v - mean) ** 2 for v, count in counts.items()) * _correction(items)
    together = math.fsum((g.total - g.items * mean) ** 2 for g in groups)
    return together * _correction(len(groups)) / alone if alone > 0 else 1.0


def quantile_of(
    counts: Mapping[float, int],
    groups: Sequence[Cluster] | None,
    *,
    confidence: float,
    least: float,
) -> float:
    """Return the quantile with which a score interval of the values' mean is made.

    Args:
        counts: how often each value was seen.
        groups: the same items by cluster; None where items are independent.
        confidence: of each bound.
        least: design effect that is taken for granted.
    """
    if groups is None:
        return z_of(confidence)
    effect = max(design_effect(counts, groups), least, 1.0)
    return t_of(confidence, len(groups) - 1) * math.sqrt(effect)


def _correction(number: int) -> float:
    return number / (number - 1) if number > 1 else 1.0
