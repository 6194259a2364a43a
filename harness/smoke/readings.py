"""What both arms make of the same given texts, token by token.

Three numbers, each a mean over the tokens of all passages. Tokens of one passage are not
independent, so errors are clustered: the passage is what was drawn.

* nll: how much less likely the text is to the candidate, in nats a token.
* top-1: share of places where the candidate thinks another token the likeliest, among those where
  the baseline is sure (probability of one half at least): elsewhere near ties swap by rounding.
* kld: Kullback-Leibler divergence, baseline from candidate, in nats a token, of distributions made
  coarse: the tokens whose probabilities are known from both, and one bucket for all the rest.
  Merging tokens cannot raise a divergence (data-processing inequality), so it is a lower bound and
  an alarm never over-reports.

Word salad in plain English looks normal on the surface; here it does not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.artifacts import Probe, Reading

_LEAST_REST = 1e-4
"""Probability below which a bucket is dust: log probabilities are kept with five digits."""
_SURE = math.log(0.5)
_Z = 1.645
"""One-sided 95 %."""


class ReadingPair(NamedTuple):
    """One passage as both arms read it."""

    baseline: Reading
    candidate: Reading


class Estimate(NamedTuple):
    """A mean over tokens."""

    mean: float
    stderr: float

    @property
    def low(self) -> float:
        """Return the one-sided lower bound."""
        return self.mean - _Z * self.stderr


class Differences(NamedTuple):
    """The three numbers at each place of one passage, where both arms know them."""

    passage: str
    nll: tuple[float, ...]
    top: tuple[float, ...]
    kld: tuple[float, ...]


def pair_readings(baseline: Probe, candidate: Probe) -> tuple[ReadingPair, ...]:
    """Return the passages that both arms read, those of the baseline without fault."""
    theirs = {reading.passage: reading for reading in candidate.readings}
    return tuple(
        ReadingPair(reading, theirs[reading.passage])
        for reading in baseline.readings
        if reading.passage in theirs and is_complete(reading)
    )


def unread_by(baseline: Probe) -> str | None:
    """Return why the baseline's readings are too few to compare with; None where they are not.

    One passage more or less proves the same; of one alone the error is infinite, and never alarms.
    """
    broken = [one for one in baseline.readings if not is_complete(one)]
    if len(broken) * 2 <= len(baseline.readings):
        return None
    first = broken[0]
    why = first.error or "log probabilities that are missing or not finite"
    return (
        f"the baseline could not read {len(broken)} of {len(baseline.readings)} passages "
        f"({first.passage}: {why})"
    )


def is_complete(reading: Reading) -> bool:
    """Return whether every token of a passage has a finite log probability."""
    return (
        reading.error is None
        and len(reading.logprobs) == len(reading.tokens) - 1
        and None not in reading.logprobs
    )


def differ(pair: ReadingPair) -> Differences:
    """Compare one passage, place by place; both arms must have read the same tokens."""
    nll, top, kld = [], [], []
    for index, (ours, theirs) in enumerate(
        zip(pair.baseline.logprobs, pair.candidate.logprobs, strict=True)
    ):
        if ours is None or theirs is None:
            continue
        one, other = pair.baseline.top[index], pair.candidate.top[index]
        nll.append(ours - theirs)
        best = _likeliest(one)
        if one[best] >= _SURE:
            top.append(float(best != _likeliest(other)))
        kld.append(divergence(one, other))
    return Differences(pair.baseline.passage, tuple(nll), tuple(top), tuple(kld))


def divergence(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float:
    """Return a lower bound of the divergence of two distributions known in part, in nats."""
    both = ours.keys() & theirs.keys()
    known = [(math.exp(ours[token]), math.exp(theirs[token])) for token in both]
    rest = (1 - sum(p for p, _ in known), 1 - sum(q for _, q in known))
    buckets = [*known, (max(rest[0], _LEAST_REST), max(rest[1], _LEAST_REST))]
    total_p, total_q = (sum(bucket[side] for bucket in buckets) for side in (0, 1))
    return sum(
        p / total_p * math.log((p / total_p) / (max(q, _LEAST_REST**2) / total_q))
        for p, q in buckets
        if p > 0
    )


def mean_over_passages(values: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean over all tokens, its error clustered by passage.

    Source: the linearized variance of a ratio of sums over clusters, as for survey means.
    """
    clusters = [cluster for cluster in values if cluster]
    num_tokens = sum(map(len, clusters))
    if not num_tokens:
        return Estimate(math.nan, math.nan)
    mean = sum(map(sum, clusters)) / num_tokens
    if len(clusters) == 1:
        return Estimate(mean, math.inf)
    residuals = [sum(cluster) - mean * len(cluster) for cluster in clusters]
    spread = sum(r * r for r in residuals) * len(clusters) / (len(clusters) - 1)
    return Estimate(mean, math.sqrt(spread) / num_tokens)


def mean_over_tokens(values: Sequence[float]) -> Estimate:
    """Return the mean over the tokens of one passage, each token by itself."""
    return mean_over_passages([[value] for value in values])


def _likeliest(top: Mapping[int, float]) -> int:
    return max(top, key=lambda token: (top[token], -token))
