"""Whether the candidate's answers end otherwise than the baseline's: cut off, or empty.

A quantized model that rambles to the end of its budget, or says nothing, is sick even where its
score holds. What is compared is the same item in both arms, by McNemar's exact test; and because
a rise of a few answers is significant where the baseline has none, it must also be larger than
the suite tolerates.
"""

from collections.abc import Callable

from harness.artifacts import Sample, Suite
from harness.errors import ReasonCode
from harness.gate.mcnemar import p_worse
from harness.gate.pairs import TaskPairs

_KINDS: tuple[tuple[ReasonCode, str, Callable[[Sample], bool]], ...] = (
    (ReasonCode.TRUNCATION_RISE, "cut off", lambda sample: sample.finish == "length"),
    (ReasonCode.EMPTY_RISE, "empty", lambda sample: not sample.answer.strip()),
)


def find_rise(task: TaskPairs, suite: Suite) -> tuple[ReasonCode, str] | None:
    """Return the first kind of answer that the candidate gives too much oftener, with a sentence.

    It is none if the rise is within the suite's tolerance, or could be chance.
    """
    for reason, kind, is_so in _KINDS:
        before = sum(is_so(pair.baseline) for pair in task.pairs)
        after = sum(is_so(pair.candidate) for pair in task.pairs)
        more = sum(is_so(p.candidate) and not is_so(p.baseline) for p in task.pairs)
        p_value = p_worse(more, before - after + more)
        if after - before > suite.max_rise * len(task.pairs) and p_value <= 1 - suite.confidence:
            return reason, (
                f"{after} of the candidate's {len(task.pairs)} answers are {kind}, where "
                f"{before} of the baseline's are (p = {p_value:.2g}) and a rise of "
                f"{suite.max_rise:.1%} is tolerated"
            )
    return None
