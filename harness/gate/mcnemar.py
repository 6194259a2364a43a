"""McNemar's exact test: of the items that flipped, were more lost than won by chance?

Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions
or percentages", Psychometrika 12 (1947) 153-157, in its exact, one-sided form.
"""

from math import comb


def p_worse(lost: int, won: int) -> float:
    """Return how often a candidate that is no worse would lose at least `lost` of its flips."""
    flips = lost + won
    ways = sum(comb(flips, count) for count in range(lost, flips + 1))
    return ways / (1 << flips)
