"""From lm-eval's nested dictionaries to our samples and scores: the only place that reads them.

lm-eval logs one dictionary for each item and filter, with the metrics as further keys. A sample
takes the suite's filter and metric, and from the Recorder how the answer really ended.
"""

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import pvariance
from typing import Any

from harness.artifacts import (
    THOUGHTS_CUT,
    Sample,
    Scale,
    TaskScore,
    TaskSpec,
    by_item,
    in_unit,
    mean_of,
)
from harness.errors import ScoringError
from harness.score.answers import answer_of, prompt_of, target_of
from harness.score.metrics import BRIER
from harness.score.parts import Part
from harness.score.recording import UNKNOWN, Finish, Outcome, Recorder

Logged = Mapping[str, Any]
_WITHOUT_ANSWER = (Finish.TIMEOUT, Finish.ERROR)
MOST = sys.float_info.max
"""JSON has no larger number."""


def to_samples(
    logged: Mapping[str, Sequence[Logged]],
    spec: TaskSpec,
    recorder: Recorder,
    repeat: int = 0,
    part: Part | None = None,
) -> tuple[Sample, ...]:
    """Return one sample an item, in the order of the tasks and of their items.

    Args:
        logged: by task name (several for a group), what lm-eval logged.
        spec: says which metric and filter count.
        recorder: holds how each answer ended.
        repeat: which of each item's answers lm-eval has scored.
        part: the items that were asked; by default all.

    Raises:
        ScoringError: an item is missing, or its metric is none of the values that the suite says.
    """
    samples: list[Sample] = []
    for task, entries in logged.items():
        chosen = [entry for entry in entries if entry["filter"] == spec.filter]
        for entry in sorted(chosen, key=lambda e: int(e["doc_id"])):
            number = int(entry["doc_id"])
            outcome = recorder.of((task, number, repeat))
            place = len(samples) if part is None else part.offsets[task] + number
            samples.append(_to_sample(entry, spec, outcome, (place, repeat)))
    asked = spec.items if part is None else part.num_items
    if len(samples) != asked:
        message = (
            f"task '{spec.name}' gave {len(samples)} answers to {asked} items with filter "
            f"'{spec.filter}'. Set the suite's items to what the task has."
        )
        raise ScoringError(message)
    return tuple(samples)


def to_score(
    spec: TaskSpec,
    samples: Sequence[Sample],
    *,
    num_prompts_cut: int,
    file: Path,
    scale: Scale = Scale.SHARE,
) -> TaskScore:
    """Return the score of a task whose samples were written to `file`.

    A request that failed counts as an error and not as a wrong answer; one that did not come in
    time is a wrong answer.

    Args:
        spec: of the task.
        samples: all of them.
        num_prompts_cut: items whose prompts did not fit.
        file: of the samples.
        scale: the unit of the score.

    Raises:
        ScoringError: every request failed.
    """
    known = [sample for sample in samples if sample.is_known]
    if not known:
        message = (
            f"every request of task '{spec.name}' failed ({len(samples)} of {len(samples)}); "
            f"the first: {samples[0].answer}"
        )
        raise ScoringError(message)
    value = in_unit(mean_of(known), scale)
    finishes = [sample.finish for sample in samples]
    return TaskScore(
        task=spec.name,
        metric=spec.metric,
        value=value,
        stderr=_stderr(samples, value, scale),
        num_items=len(samples) // spec.repeats,
        num_errors=finishes.count("error"),
        num_empty=sum(s.finish != "error" and not s.answer.strip() for s in samples),
        num_truncated=sum(sample.is_cut for sample in samples),
        num_prompts_cut=num_prompts_cut,
        samples=f"{file.parent.name}/{file.name}",
        samples_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        repeats=spec.repeats,
        num_timeouts=finishes.count("timeout"),
        num_thoughts_cut=finishes.count(THOUGHTS_CUT),
        finishes=dict(sorted(Counter(finishes).items())),
        scale=scale,
    )


def _means(samples: Sequence[Sample]) -> list[float]:
    """Return the mean of the known answers to each item: answers to one item are no sample."""
    known = by_item(sample for sample in samples if sample.is_known)
    return [mean_of(answers) for answers in known.values()]


def _stderr(samples: Sequence[Sample], score: float, scale: Scale) -> float:
    """Return the standard error of a score; that of a proportion, if values are 0 or 1.

    That of a perplexity is its own share of that of the mean log-likelihood: the delta method.
    """
    if scale is Scale.SHARE:
        return _of_mean(_means(samples))
    known = [sample for sample in samples if sample.is_known]
    mean, words = mean_of(known), sum(sample.weight or 0.0 for sample in known)
    residuals = [sample.value - mean * (sample.weight or 0.0) for sample in known]
    error = _of_mean(residuals) * len(known) / (words or 1.0)
    return min(error * score if scale is Scale.PERPLEXITY else error / math.log(2), MOST)


def _of_mean(values: Sequence[float]) -> float:
    return math.sqrt(pvariance(values) / max(len(values) - 1, 1))


def _to_sample(entry: Logged, spec: TaskSpec, outcome: Outcome, place: tuple[int, int]) -> Sample:
    failed = outcome.finish in _WITHOUT_ANSWER
    course = UNKNOWN if failed else outcome.course
    doc_id, repeat = place
    return Sample(
        doc_id=doc_id,
        doc_hash=str(entry["doc_hash"]),
        prompt_hash=str(entry["prompt_hash"]),
        target_hash=str(entry["target_hash"]),
        value=0.0 if failed else _value(entry, spec),
        prompt=prompt_of(entry),
        target=target_of(entry),
        answer=(outcome.error or "") if failed else answer_of(entry, spec.metric),
        finish=outcome.finish.name.lower(),
        cluster=str(entry["doc"][spec.cluster]) if spec.cluster else "",
        num_tokens=course.num_tokens,
        num_thought_tokens=course.num_thought_tokens,
        repeat=repeat,
        voted=str(entry["filtered_resps"][0]) if spec.repeats > 1 and not failed else "",
        weight=None if spec.relative_margin is None else _text(entry, spec)[1],
    )


def _text(entry: Logged, spec: TaskSpec) -> tuple[float, float]:
    """Return a text's log-likelihood, and how many words, bytes or targets it has.

    Raises:
        ScoringError: lm-eval logged something else.
    """
    found = entry.get(spec.metric)
    pair = found if isinstance(found, tuple | list) else (found, 1.0)
    if len(pair) == 2 and all(_is_number(part) for part in pair) and pair[1] >= 0:  # noqa: PLR2004  a pair
        return float(pair[0]), float(pair[1])
    message = (
        f"task '{spec.name}', item {entry['doc_id']}: metric '{spec.metric}' is {found!r:.40}, no "
        "log-likelihood with its number of words or bytes. Choose another metric in the suite."
    )
    raise ScoringError(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(entry: Logged, spec: TaskSpec) -> float:
    """Return the item's metric, mapped to a fraction of 1 where the suite gives its range.

    Of a perplexity it is the log-likelihood of the item's text.
    """
    if spec.relative_margin is not None:
        return _text(entry, spec)[0]
    value = entry.get(spec.metric)
    if spec.metric == BRIER and isinstance(value, tuple):
        value = _brier(*value)
    if isinstance(value, bool | int | float):
        worst, best = spec.value_range or (0.0, 1.0)
        share = (float(value) - worst) / (best - worst)
        if share in {0.0, 1.0} or (spec.value_range and 0 < share < 1):
            return share
    known = "neither 0 nor 1"
    if spec.value_range:
        known = f"not between {spec.value_range[0]:g} and {spec.value_range[1]:g}"
    message = (
        f"task '{spec.name}', item {entry['doc_id']}: metric '{spec.metric}' is {value!r:.40}, "
        f"{known}. Choose another metric in the suite, or give its value_range."
    )
    raise ScoringError(message)


def _brier(label: int, probabilities: Iterable[float]) -> float:
    """Return what an item adds to lm-eval's Brier score."""
    return math.fsum((p - (number == label)) ** 2 for number, p in enumerate(probabilities))
