"""The two arms' answers to one task, item by item."""

from typing import NamedTuple

from harness.artifacts import Arm, Sample, TaskScore, TaskSpec
from harness.errors import SuiteError


class AnswerPair(NamedTuple):
    """Both answers to one item."""

    baseline: Sample
    candidate: Sample

    @property
    def failed(self) -> bool:
        """Whether a request failed, so that an answer is unknown."""
        return "error" in {self.baseline.finish, self.candidate.finish}


class Side(NamedTuple):
    """What one arm has of one task."""

    arm: str
    """`baseline` or `candidate`."""
    score: TaskScore | None
    samples: tuple[Sample, ...]


class TaskPairs(NamedTuple):
    """One task of both arms."""

    spec: TaskSpec
    sides: tuple[Side, Side]
    """The baseline's, then the candidate's."""
    pairs: tuple[AnswerPair, ...]
    """Items that both arms answered; failed requests are left out."""

    @property
    def num_unknown(self) -> int:
        """Items of the suite that at least one arm did not answer."""
        return max(self.spec.items - len(self.pairs), 0)

    @property
    def lost(self) -> tuple[AnswerPair, ...]:
        """Items that only the baseline answered rightly."""
        return tuple(p for p in self.pairs if p.baseline.value > p.candidate.value)

    @property
    def won(self) -> tuple[AnswerPair, ...]:
        """Items that only the candidate answered rightly."""
        return tuple(p for p in self.pairs if p.baseline.value < p.candidate.value)

    @property
    def is_plain(self) -> bool:
        """Whether lost and won items are all that its form looks at."""
        return is_plain(self.spec)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The group of each pair."""
        return tuple(p.baseline.cluster for p in self.pairs)

    def differences(self, kept: float) -> tuple[float, ...]:
        """Return `candidate - kept x baseline` for each pair."""
        return tuple(p.candidate.value - kept * p.baseline.value for p in self.pairs)


def is_plain(spec: TaskSpec) -> bool:
    """Return whether lost and won items are all that the form of a task looks at."""
    return not (spec.recovery or spec.cluster or spec.value_range)


def pair(spec: TaskSpec, baseline: Arm, candidate: Arm) -> TaskPairs:
    """Pair the answers to one task; a request that failed leaves its item unknown, not wrong.

    Raises:
        SuiteError: a value is neither 0 nor 1, or not between them where it may be.
    """
    sides = _side(spec, baseline, arm="baseline"), _side(spec, candidate, arm="candidate")
    for sample in (*sides[0].samples, *sides[1].samples):
        _check_value(spec, sample)
    answered = (AnswerPair(a, b) for a, b in zip(sides[0].samples, sides[1].samples, strict=False))
    return TaskPairs(spec, sides, tuple(p for p in answered if not p.failed))


def _check_value(spec: TaskSpec, sample: Sample) -> None:
    if spec.value_range is None:
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
