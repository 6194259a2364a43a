"""Bounds of a paired difference that no task's margin is asked of, such as between two runs."""

from collections import Counter
from collections.abc import Sequence

from harness.gate.clusters import group_up, quantile_of
from harness.gate.mean import Range, mean_bounds
from harness.gate.tango import Bounds


def difference_bounds(
    differences: Sequence[float], clusters: Sequence[str], *, confidence: float
) -> Bounds | None:
    """Return the one-sided bounds of the mean of items' differences, each within -1 and 1.

    Args:
        differences: of each item.
        clusters: the group of each item; empty texts where items are independent.
        confidence: of each bound.

    Returns:
        None where there is no item, or all are of one group, so that nothing shows how they vary.
    """
    grouped = group_up(differences, clusters) if any(clusters) else None
    if not differences or (grouped is not None and len(grouped) < 2):  # noqa: PLR2004  a variance
        return None
    counts = Counter(differences)
    quantile = quantile_of(counts, grouped, confidence=confidence, least=1.0)
    return mean_bounds(counts, Range(-1.0, 1.0), quantile=quantile)
