"""The two arms' answers to one task, item by item.

An item may be asked several times. Its answers share their question, so they are no evidence of
their own: an item is one pair of numbers, the shares of its answers that are right in each arm, and
everything behind this file counts items.

Time is a part of an answer. One that did not come in time is wrong for the candidate where GO is to
be shown: left out, the longest and hardest items would go first, and a slower candidate would gain.
Where NO-GO is to be shown it counts as right, for a slow machine is no proof of a loss. The
baseline's are unknown: were they wrong, the candidate would gain from a slow baseline. So are those
of a perplexity, for no log-likelihood stands for a text that was not read.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from harness.artifacts import Arm, Sample, TaskScore, TaskSpec, by_item
from harness.errors import SuiteError
from harness.gate.ratio import Weighted, sum_up


class AnswerPair(NamedTuple):
    """Both arms' answers to one question, asked with the same seed."""

    baseline: Sample
    candidate: Sample

    @property
    def doc_id(self) -> int:
        """Number of the item."""
        return self.baseline.doc_id

    @property
    def failed(self) -> bool:
        """Whether a request failed, so that an answer is unknown."""
        both_known = self.baseline.is_known and self.candidate.is_known
        return not both_known or self.baseline.finish == "timeout"


class ItemPair(NamedTuple):
    """Both arms' answers to one item; every one of them is known."""

    answers: tuple[AnswerPair, ...]

    @property
    def baseline(self) -> float:
        """Mean of the baseline's answers."""
        return math.fsum(pair.baseline.value for pair in self.answers) / len(self.answers)

    @property
    def candidate(self) -> float:
        """Mean of the candidate's answers."""
        return math.fsum(pair.candidate.value for pair in self.answers) / len(self.answers)

    @property
    def candidate_at_best(self) -> float:
        """The same, had all that came too late been right."""
        return math.fsum(_at_best(pair.candidate) for pair in self.answers) / len(self.answers)

    def shown(self, *, lost: bool) -> AnswerPair:
        """Return the first answers that differ in this direction, or the first ones."""
        sign = 1 if lost else -1
        differing = (p for p in self.answers if sign * (p.baseline.value - p.candidate.value) > 0)
        return next(differing, self.answers[0])


class Side(NamedTuple):
    """What one arm has of one task."""

    arm: str
    """`baseline` or `candidate`."""
    score: TaskScore | None
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class TaskPairs:
    """One task of both arms."""

    spec: TaskSpec
    sides: tuple[Side, Side]
    """The baseline's, then the candidate's."""
    pairs: tuple[AnswerPair, ...]
    """Answers that both arms gave; failed requests are left out."""

    @cached_property
    def items(self) -> tuple[ItemPair, ...]:
        """Items of which every answer is known in both arms."""
        if self.spec.repeats == 1:
            return tuple(ItemPair((pair,)) for pair in self.pairs)
        return tuple(
            ItemPair(tuple(answers))
            for answers in by_item(self.pairs).values()
            if len(answers) == self.spec.repeats
        )

    @property
    def num_unknown(self) -> int:
        """Items of the suite that at least one arm did not answer."""
        return max(self.spec.items - len(self.items), 0)

    @property
    def num_late(self) -> int:
        """Answers of the candidate that did not come in time."""
        return sum(pair.candidate.finish == "timeout" for pair in self.pairs)

    @property
    def lost(self) -> tuple[ItemPair, ...]:
        """Items of which the baseline gave more right answers."""
        return tuple(item for item in self.items if item.baseline > item.candidate)

    @property
    def won(self) -> tuple[ItemPair, ...]:
        """Items of which the candidate gave more right answers."""
        return tuple(item for item in self.items if item.baseline < item.candidate)

    @property
    def is_plain(self) -> bool:
        """Whether lost and won items are all that its form looks at."""
        return is_plain(self.spec)

    @property
    def is_perplexity(self) -> bool:
        """Whether its items are documents with log-likelihoods, not right or wrong."""
        return self.spec.relative_margin is not None

    @property
    def documents(self) -> tuple[Weighted, ...]:
        """The documents of a perplexity; those of a cluster are one."""
        each = [Weighted(*_differ(p)) for p in self.pairs]
        return tuple(sum_up(each, self.clusters) if self.spec.cluster else each)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The group of each item."""
        return tuple(item.answers[0].baseline.cluster for item in self.items)

    def differences(self, kept: float) -> tuple[float, ...]:
        """Return `candidate - kept x baseline` for each item."""
        return tuple(item.candidate - kept * item.baseline for item in self.items)

    def best_differences(self, kept: float) -> tuple[float, ...]:
        """Return the same, had all that came too late been right."""
        return tuple(item.candidate_at_best - kept * item.baseline for item in self.items)


def _differ(pair: AnswerPair) -> tuple[float, float]:
    """Return the difference of a document's log-likelihoods, and its weight."""
    return pair.candidate.value - pair.baseline.value, pair.baseline.weight or 0.0


def is_plain(spec: TaskSpec) -> bool:
    """Return whether lost and won items are all that the form of a task looks at."""
    one_by_one = spec.recovery or spec.cluster or spec.value_range or spec.repeats > 1
    return not (one_by_one or spec.relative_margin)


def is_right_or_wrong(spec: TaskSpec) -> bool:
    """Return whether each item is 0 or 1, and nothing between."""
    return spec.value_range is None and spec.repeats == 1 and spec.relative_margin is None


def pair(spec: TaskSpec, baseline: Arm, candidate: Arm) -> TaskPairs:
    """Pair the answers to one task; a request that failed leaves its item unknown, not wrong.

    Raises:
        SuiteError: a value is neither 0 nor 1, or not between them where it may be; or it is no
            log-likelihood where the task asks for a perplexity.
    """
    sides = _side(spec, baseline, arm="baseline"), _side(spec, candidate, arm="candidate")
    for sample in (*sides[0].samples, *sides[1].samples):
        _check_value(spec, sample)
    answered = (AnswerPair(a, b) for a, b in zip(sides[0].samples, sides[1].samples, strict=False))
    return TaskPairs(spec, sides, tuple(p for p in answered if not p.failed))


def _at_best(sample: Sample) -> float:
    return 1.0 if sample.finish == "timeout" else sample.value


def _check_value(spec: TaskSpec, sample: Sample) -> None:
    if (sample.weight is None) == (spec.relative_margin is not None):
        found = "a value" if sample.weight is None else "a log-likelihood"
        message = (
            f"task '{spec.name}', metric '{spec.metric}': item {sample.doc_id} has {found}. A "
            "relative_margin is of a perplexity, and a perplexity needs one. Correct the suite."
        )
        raise SuiteError(message)
    if sample.weight is not None:
        known = math.isfinite(sample.value) and sample.weight >= 0
        fix = "A log-likelihood is a number, and its weight none below 0: score again"
    elif spec.value_range is None:
        known, fix = sample.value in {0.0, 1.0}, "Choose a metric that is 0 or 1 for each item"
        fix += ", or give the task a value_range"
    else:
        known, fix = 0.0 <= sample.value <= 1.0, "Score again with the suite as it is now"
    if not known:
        message = (
            f"task '{spec.name}', metric '{spec.metric}': item {sample.doc_id} scored "
            f"{sample.value:g}. {fix}."
        )
        raise SuiteError(message)


def _side(spec: TaskSpec, holder: Arm, *, arm: str) -> Side:
    score = next((s for s in holder.scorecard.tasks if s.task == spec.name), None)
    return Side(arm, score, tuple(holder.samples.get(spec.name, ())))
