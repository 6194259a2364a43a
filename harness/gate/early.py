"""The verdict on a candidate whose scoring ended before every item was asked.

What ended it is not believed: it is looked at again, from the answers. The task that ended it is
judged on the items that were asked, with the bound of that look; it and what was not asked to its
end can never be GO.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from harness.artifacts import (
    THOUGHTS_CUT,
    Arm,
    Decision,
    EarlyEnd,
    Sample,
    Suite,
    TaskScore,
    TaskSpec,
    TaskVerdict,
    in_unit,
    mean_of,
)
from harness.errors import ReasonCode
from harness.gate.sequential import confidence_of, spent


class Seen(NamedTuple):
    """What is judged, where scoring may have ended early."""

    suite: Suite
    """With the items of each task that were asked."""
    baseline: Arm
    """With its answers to those."""
    surely: Mapping[str, float]
    """The confidence with which a loss must be proven, after the looks that were made, by task."""
    scope: tuple[str, ...]
    """What the verdict does not hold for, and what the looks have spent, a fact a line."""


def as_asked(suite: Suite, baseline: Arm, candidate: Arm) -> Seen:
    """Return the suite and the baseline's answers, of the items that the candidate was asked.

    A claim of no loss is not tested on a part: nothing was spent on it.
    """
    ended = candidate.scorecard.ended
    surely = {spec.name: _no_go_confidence(spec, suite, candidate) for spec in suite.tasks}
    if ended is None:
        return Seen(suite, baseline, surely, _scope(suite, candidate))
    asked = set(ended.items)
    tasks = tuple(
        replace(spec, items=len(asked), claim=None) if spec.name == ended.task else spec
        for spec in suite.tasks
    )
    samples = tuple(s for s in baseline.samples.get(ended.task, ()) if s.doc_id in asked)
    scores = tuple(
        _score_of(score, samples) if score.task == ended.task else score
        for score in baseline.scorecard.tasks
    )
    narrowed = Arm(
        scorecard=replace(baseline.scorecard, tasks=scores),
        samples={**baseline.samples, ended.task: samples},
    )
    return Seen(replace(suite, tasks=tasks), narrowed, surely, _scope(suite, candidate))


def _no_go_confidence(spec: TaskSpec, suite: Suite, candidate: Arm) -> float:
    looks = candidate.scorecard.looks.get(spec.name, ())
    ended = candidate.scorecard.ended
    asked = len(ended.items) if ended and ended.task == spec.name else spec.items
    return confidence_of(spec, looks, asked, suite.confidence)


def conclude(verdict: TaskVerdict, ended: EarlyEnd | None) -> TaskVerdict:
    """Return a task's verdict, never GO where not all of it was asked."""
    if ended is None or verdict.decision is Decision.NO_GO:
        return verdict
    if verdict.task in ended.not_asked:
        message = f"not asked to its end, since the run ended early at {ended.task}"
    elif verdict.task == ended.task:
        message = (
            f"the run ended after {len(ended.items)} items, for GO was out of reach: "
            f"{verdict.message}"
        )
    else:
        return verdict
    return replace(
        verdict, decision=Decision.INCONCLUSIVE, reason=ReasonCode.ENDED_EARLY, message=message
    )


def _scope(suite: Suite, candidate: Arm) -> tuple[str, ...]:
    """Return what a verdict does not hold for because scoring ended early, and what was spent."""
    ended, looks = candidate.scorecard.ended, candidate.scorecard.looks
    lines = []
    if ended is not None:
        of = next(spec.items for spec in suite.tasks if spec.name == ended.task)
        rest = f"; nothing of {', '.join(ended.not_asked)} is judged" if ended.not_asked else ""
        lines.append(
            f"ended early ({ended.why}): {len(ended.items)} of {of} items of {ended.task} were "
            f"asked{rest}; {ended.saved}"
        )
    for spec in suite.tasks:
        if looks.get(spec.name):
            share = looks[spec.name][-1] / spec.items
            level = 1 - suite.confidence
            lines.append(
                f"{spec.name} was looked at after {', '.join(map(str, looks[spec.name]))} items, "
                f"which spends {spent(share, level):.2%} of the {level:.0%} by which NO-GO may err"
            )
    return tuple(lines)


def _score_of(score: TaskScore, samples: tuple[Sample, ...]) -> TaskScore:
    """Return the score of a part of a task's answers."""
    known = [sample for sample in samples if sample.is_known]
    finishes = Counter(sample.finish for sample in samples)
    return replace(
        score,
        value=in_unit(mean_of(known), score.scale) if known else 0.0,
        num_items=len({sample.doc_id for sample in samples}),
        num_errors=finishes["error"],
        num_truncated=sum(sample.is_cut for sample in samples),
        num_thoughts_cut=finishes[THOUGHTS_CUT],
        num_timeouts=finishes["timeout"],
        num_empty=sum(s.finish != "error" and not s.answer.strip() for s in samples),
    )
