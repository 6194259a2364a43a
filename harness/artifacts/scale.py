"""The unit of a task's score, and the score in it.

A perplexity is no mean of items: it is made of the log-likelihoods of all texts and of all their
words (bytes, targets), as lm-eval's `perplexity`, `weighted_perplexity` and `bits_per_byte` are.
"""

import math
import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol


class Scale(StrEnum):
    """The unit of a task's score."""

    SHARE = "share"
    """A fraction of 1, of items or of their values: more is better."""
    PERPLEXITY = "perplexity"
    """Of texts, for each word, byte or target: less is better."""
    BITS = "bits"
    """For each byte of texts, the logarithm of the perplexity to base 2: less is better."""


class Weighed(Protocol):
    """An item with its value, and its weight where that is a log-likelihood."""

    @property
    def value(self) -> float:
        """Return the metric of the item, or its log-likelihood in nats."""

    @property
    def weight(self) -> float | None:
        """Return the number of words, bytes or targets; None where the value is a metric."""


def mean_of(items: Iterable[Weighed]) -> float:
    """Return the mean value, of at least one item: each weight is that many values."""
    values, weights = zip(*((i.value, 1 if i.weight is None else i.weight) for i in items))  # noqa: B905  one iterable
    return math.fsum(values) / (math.fsum(weights) or 1.0)


def in_unit(mean: float, scale: Scale) -> float:
    """Return a mean value as the task's score; the largest number stands for larger ones."""
    match scale:
        case Scale.SHARE:
            return mean
        case Scale.PERPLEXITY:
            return _exp(-mean)
        case Scale.BITS:
            return -mean / math.log(2)


def _exp(power: float) -> float:
    try:
        return math.exp(power)
    except OverflowError:
        return sys.float_info.max
