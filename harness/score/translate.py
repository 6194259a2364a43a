"""From lm-eval's nested dictionaries to our samples and scores: the only place that reads them.

lm-eval logs one dictionary for each item and filter, with the metrics as further keys. A sample
takes the suite's filter and metric, and from the Recorder how the answer really ended.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import pvariance
from typing import Any

from harness.artifacts import Sample, TaskScore, TaskSpec
from harness.errors import ScoringError
from harness.score.recording import UNKNOWN, Finish, Outcome, Recorder

Logged = Mapping[str, Any]
_WITHOUT_ANSWER = (Finish.TIMEOUT, Finish.ERROR)


def to_samples(
    logged: Mapping[str, Sequence[Logged]], spec: TaskSpec, recorder: Recorder, repeat: int = 0
) -> tuple[Sample, ...]:
    """Return one sample an item, in the order of the tasks and of their items.

    Args:
        logged: by task name (several for a group), what lm-eval logged.
        spec: says which metric and filter count.
        recorder: holds how each answer ended.
        repeat: which of each item's answers lm-eval has scored.

    Raises:
        ScoringError: an item is missing, or its metric is none of the values that the suite says.
    """
    samples: list[Sample] = []
    for task, entries in logged.items():
        chosen = [entry for entry in entries if entry["filter"] == spec.filter]
        for entry in sorted(chosen, key=lambda e: int(e["doc_id"])):
            outcome = recorder.of((task, int(entry["doc_id"]), repeat))
            place = len(samples), repeat
            samples.append(_to_sample(entry, spec, outcome, place))
    if len(samples) != spec.items:
        message = (
            f"task '{spec.name}' gave {len(samples)} answers to {spec.items} items with filter "
            f"'{spec.filter}'. Set the suite's items to what the task has."
        )
        raise ScoringError(message)
    return tuple(samples)


def to_score(
    spec: TaskSpec, samples: Sequence[Sample], *, num_prompts_cut: int, file: Path
) -> TaskScore:
    """Return the score of a task whose samples were written to `file`.

    A request that failed counts as an error and not as a wrong answer; one that did not come in
    time is a wrong answer.

    Raises:
        ScoringError: every request failed.
    """
    known = [sample.value for sample in samples if sample.finish != "error"]
    if not known:
        message = (
            f"every request of task '{spec.name}' failed ({len(samples)} of {len(samples)}); "
            f"the first: {samples[0].answer}"
        )
        raise ScoringError(message)
    value = sum(known) / len(known)
    finishes = [sample.finish for sample in samples]
    return TaskScore(
        task=spec.name,
        metric=spec.metric,
        value=value,
        stderr=_stderr(_means(samples)),
        num_items=len(samples) // spec.repeats,
        num_errors=finishes.count("error"),
        num_empty=sum(s.finish != "error" and not s.answer.strip() for s in samples),
        num_truncated=finishes.count("length"),
        num_prompts_cut=num_prompts_cut,
        samples=f"{file.parent.name}/{file.name}",
        samples_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        repeats=spec.repeats,
        num_timeouts=finishes.count("timeout"),
        num_thoughts_cut=sum(sample.thoughts_cut for sample in samples),
        finishes=dict(sorted(Counter(finishes).items())),
    )


def _means(samples: Sequence[Sample]) -> list[float]:
    """Return the mean of the known answers to each item: answers to one item are no sample."""
    known: dict[int, list[float]] = {}
    for sample in samples:
        if sample.finish != "error":
            known.setdefault(sample.doc_id, []).append(sample.value)
    return [sum(values) / len(values) for values in known.values()]


def _stderr(values: Sequence[float]) -> float:
    """Return the standard error of the mean; that of a proportion, if values are 0 or 1."""
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
        prompt=str(entry["arguments"][0][0]),
        target=_target(entry),
        answer=(outcome.error or "") if failed else _answer(entry, spec.metric),
        finish=outcome.finish.name.lower(),
        cluster=str(entry["doc"][spec.cluster]) if spec.cluster else "",
        num_tokens=course.num_tokens,
        num_thought_tokens=course.num_thought_tokens,
        repeat=repeat,
        voted=str(entry["filtered_resps"][0]) if spec.repeats > 1 and not failed else "",
        thoughts_cut=course.thoughts_cut,
    )


def _value(entry: Logged, spec: TaskSpec) -> float:
    """Return the item's metric, mapped to a fraction of 1 where the suite gives its range."""
    value = entry.get(spec.metric)
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


def _is_multiple_choice(entry: Logged) -> bool:
    return isinstance(entry["arguments"][0][1], str)


def _target(entry: Logged) -> str:
    target = entry["target"]
    if _is_multiple_choice(entry) and isinstance(target, int):
        return str(entry["arguments"][target][1])
    return str(target)


def _answer(entry: Logged, metric: str) -> str:
    if not _is_multiple_choice(entry):
        return str(entry["resps"][0][0])
    options = [str(arguments[1]) for arguments in entry["arguments"]]
    scores = [float(answers[0][0]) for answers in entry["resps"]]
    ranked = [s / _divisor(metric, option) for s, option in zip(scores, options, strict=True)]
    return options[ranked.index(max(ranked))]


def _divisor(metric: str, option: str) -> int:
    """Return what lm-eval divides an option's log-likelihood by, for each of its metrics."""
    text = option.lstrip()  # requests carry the delimiter in front, lm-eval's lengths do not
    lengths = {"acc_norm": len(text), "acc_bytes": len(text.encode())}
    return max(lengths.get(metric, 1), 1)
