"""From what a tool recorded to an arm, so that the gate sees nothing new.

Items keep the tool's order and are numbered from 0. Answers to an item that was asked several times
lie one after another, as ours do; the gate compares items by the mean of theirs.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import pvariance

from harness.artifacts import (
    Arm,
    Deployment,
    Sample,
    Scale,
    Scorecard,
    Suite,
    TaskScore,
    TaskSpec,
    digest_of,
    in_unit,
    mean_of,
)
from harness.errors import IncomparableError, SuiteError
from harness.foreign.recorded import Answer, Metric, Recorded, RecordedTask

_UNKNOWN = "not recorded"
BESIDE_WEIGHTS = "what differs between the two is judged with the weights"
_OWN = ("output_type", "generation", "num_fewshot", "apply_chat_template")
"""Conditions that our own scores name alike."""


def to_arm(recorded: Recorded, suite: Suite, *, arm: str) -> Arm:
    """Return an arm with the answers to the suite's tasks.

    Raises:
        SuiteError: a metric is not recorded, is no number, or runs the other way.
        IncomparableError: none of the suite's tasks is recorded.
    """
    samples: dict[str, tuple[Sample, ...]] = {}
    generation: dict[str, str] = {}
    cut: dict[str, int] = {}
    for spec in suite.tasks:
        members = recorded.members(spec.asked)
        if members:
            _check_direction(members, spec, suite)
            samples[spec.name] = _samples(members, spec)
            cut[spec.name] = sum(task.num_cut or 0 for task in members)
            conditions = {name: members[0].conditions.get(name) for name in _OWN}
            known = {name: value for name, value in conditions.items() if value is not None}
            generation[spec.name] = json.dumps(known, sort_keys=True, default=str)
    if not samples:
        wanted = ", ".join(spec.name for spec in suite.tasks)
        held = ", ".join(task.name for task in recorded.tasks)
        message = (
            f"suite '{suite.name}' asks {wanted}, and '{recorded.place}' has {held}. Name a suite "
            "with those tasks."
        )
        raise IncomparableError(message)
    asked = [spec for spec in suite.tasks if spec.name in samples]
    scores = tuple(_score(spec, samples[spec.name], cut[spec.name]) for spec in asked)
    scorecard = Scorecard(
        arm=arm,
        suite=suite.name,
        suite_digest=suite.digest,
        deployment=_deployment(recorded),
        tasks=scores,
        lm_eval_version=recorded.scorer_version or recorded.version,
        generation=generation,
    )
    return Arm(scorecard=scorecard, samples=samples)


def _check_direction(members: Sequence[RecordedTask], spec: TaskSpec, suite: Suite) -> None:
    """Refuse a suite that takes for better what the tool records as worse; a perplexity's is known.

    Raises:
        SuiteError: with the value_range that it needs.
    """
    worst, best = spec.value_range or (0.0, 1.0)
    for task in members:
        is_up = task.higher_is_better.get(spec.metric)
        if is_up not in {None, best > worst} and spec.relative_margin is None:
            low, high = sorted((worst, best))
            fix = f"[{low:g}, {high:g}]" if is_up else f"[{high:g}, {low:g}]"
            message = (
                f"task '{task.name}': of metric {spec.metric} {'more' if is_up else 'less'} is "
                f"better, and suite '{suite.name}' takes {worst:g} for the worst and {best:g} for "
                f"the best. Correct its value_range, such as {fix}, worst first."
            )
            raise SuiteError(message)


def align(own: Arm, foreign: Arm, *, place: str) -> tuple[Arm, Arm, tuple[str, ...]]:
    """Return an arm of ours and one of another tool's with what both record, and what is left out.

    Args:
        own: scored by harness.
        foreign: made by to_arm.
        place: folder of the answer.

    Raises:
        IncomparableError: nothing of an item shows that both arms were asked the same.
    """
    left: dict[str, None] = {}
    generation: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for task in own.scorecard.generation.keys() & foreign.scorecard.generation.keys():
        ours, theirs = (json.loads(arm.scorecard.generation[task]) for arm in (own, foreign))
        left |= dict.fromkeys(sorted(ours.keys() - theirs.keys()))
        for kept, values in zip(generation, (ours, theirs), strict=True):
            both = {name: values[name] for name in ours.keys() & theirs.keys()}
            kept[task] = json.dumps(both, sort_keys=True)
    address = own.scorecard.deployment.address or f"'{place}'"
    shown = dataclasses.replace(own.scorecard.deployment, address=address)
    other = foreign.scorecard.deployment.engine
    notes = [f"the arms were answered by {shown.engine} and by {other}: {BESIDE_WEIGHTS}"]
    if left:
        notes.append(f"not compared, for one arm does not record them: {', '.join(left)}")
    return (
        _with(own, shown, generation[0]),
        _with(foreign, foreign.scorecard.deployment, generation[1]),
        tuple(notes),
    )


def same_dtype(left: Arm, right: Arm) -> tuple[Arm, Arm]:
    """Return both arms without the type of the arithmetic where one of them does not record it."""
    arms = (left, right)
    if any(arm.scorecard.deployment.dtype == _UNKNOWN for arm in arms):
        left, right = (
            _with(arm, dataclasses.replace(arm.scorecard.deployment, dtype=_UNKNOWN), None)
            for arm in arms
        )
    return left, right


def _with(arm: Arm, deployment: Deployment, generation: Mapping[str, str] | None) -> Arm:
    card = dataclasses.replace(arm.scorecard, deployment=deployment)
    if generation is not None:
        card = dataclasses.replace(card, generation=generation)
    return dataclasses.replace(arm, scorecard=card)


def _samples(members: Sequence[RecordedTask], spec: TaskSpec) -> tuple[Sample, ...]:
    """Return the items that the suite asks for: of each member as many, from its beginning."""
    has_more = sum(task.num_items for task in members) > spec.items
    of_each = spec.items // len(members) if has_more else None
    samples: list[Sample] = []
    for task in members:
        items = [list(found) for _, found in groupby(task.answers, key=lambda answer: answer.item)]
        for answers in items[:of_each]:
            _check_repeats(task, answers, spec)
            doc_id = len(samples) // spec.repeats
            samples += (_sample(task, answer, spec, doc_id) for answer in answers)
    return tuple(samples)


def _check_repeats(task: RecordedTask, answers: Sequence[Answer], spec: TaskSpec) -> None:
    if len(answers) != spec.repeats:
        message = (
            f"task '{task.name}', item {answers[0].item}: was asked {len(answers)} times, and the "
            f"suite asks {spec.repeats} times. Set the suite's repeats, or score again."
        )
        raise IncomparableError(message)


def _sample(task: RecordedTask, answer: Answer, spec: TaskSpec, doc_id: int) -> Sample:
    if spec.cluster and spec.cluster not in answer.fields:
        fields = ", ".join(sorted(answer.fields)) or "none"
        message = (
            f"task '{task.name}', item {answer.item}: has no field '{spec.cluster}' to group it "
            f"by, only {fields}. Correct the suite's cluster."
        )
        raise SuiteError(message)
    return Sample(
        doc_id=doc_id,
        doc_hash=answer.doc_hash,
        prompt_hash=answer.prompt_hash,
        target_hash=answer.target_hash,
        value=0.0 if answer.finish == "error" else _value(task, answer, spec),
        prompt=answer.prompt,
        target=answer.target,
        answer=answer.answer,
        finish=answer.finish,
        cluster=str(answer.fields[spec.cluster]) if spec.cluster else "",
        num_tokens=answer.num_tokens,
        repeat=answer.repeat,
        voted=answer.answer.strip() if spec.repeats > 1 else "",
        weight=_weight(answer, spec),
    )


def _value(task: RecordedTask, answer: Answer, spec: TaskSpec) -> float:
    """Return the item's metric, mapped to a fraction of 1 where the suite gives its range.

    Of a perplexity it is the log-likelihood of the item's text.
    """
    metric = Metric(spec.metric, spec.filter)
    value = answer.values.get(metric)
    if spec.relative_margin is not None and (text := _text(value)) is not None:
        return text[0]
    worst, best = spec.value_range or (0.0, 1.0)
    is_number = isinstance(value, bool | int | float) and spec.relative_margin is None
    if is_number and isinstance(value, bool | int | float) and math.isfinite(value):
        share = (float(value) - worst) / (best - worst)
        if 0 <= share <= 1:
            return share
    if metric not in task.metrics:
        fix = f"It has {', '.join(map(str, task.metrics)) or 'none'}. Choose one in a --suite"
        what = f"metric {metric} is not recorded"
    else:
        fix = "Score again, or choose another metric, or its value_range, in a --suite"
        low, high = sorted((worst, best))
        what = f"metric {metric} is {value!r:.40}, no number between {low:g} and {high:g}"
    message = f"task '{task.name}', item {answer.item}: {what}. {fix}."
    raise SuiteError(message)


def _text(value: object) -> tuple[float, float] | None:
    """Return a text's log-likelihood and its words, bytes or targets; None where it is none."""
    pair = value if isinstance(value, list) else [value, 1.0]
    numbers = [
        float(number)
        for number in pair
        if isinstance(number, int | float) and not isinstance(number, bool)
    ]
    if len(pair) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)):  # noqa: PLR2004  a pair
        return None
    return numbers[0], numbers[1]


def _weight(answer: Answer, spec: TaskSpec) -> float | None:
    if spec.relative_margin is None:
        return None
    text = _text(answer.values.get(Metric(spec.metric, spec.filter)))
    return 0.0 if text is None else text[1]


def _scale(spec: TaskSpec) -> Scale:
    """Return the unit of a score; records name lm-eval's metrics, and nothing else tells it."""
    if spec.relative_margin is None:
        return Scale.SHARE
    return Scale.BITS if spec.metric.startswith("bits") else Scale.PERPLEXITY


def _score(spec: TaskSpec, samples: Sequence[Sample], cut: int) -> TaskScore:
    right = [sample for sample in samples if sample.finish != "error"]
    known = [sample.value for sample in right]
    finishes = [sample.finish for sample in samples]
    return TaskScore(
        task=spec.name,
        metric=spec.metric,
        value=in_unit(mean_of(right), _scale(spec)) if right else 0.0,
        stderr=math.sqrt(pvariance(known) / max(len(known) - 1, 1)) if known else 0.0,
        num_items=len(samples) // spec.repeats,
        repeats=spec.repeats,
        num_errors=finishes.count("error"),
        num_empty=sum(s.finish != "error" and not s.answer.strip() for s in samples),
        num_truncated=max(finishes.count("length"), cut),
        num_prompts_cut=0,
        samples="",
        samples_sha256="",
        scale=_scale(spec),
    )


def _deployment(recorded: Recorded) -> Deployment:
    """Return what is known of what answered: what the tool says of it, and where it says so."""
    return Deployment(
        engine=recorded.engine,
        version="(version not recorded)",
        model=recorded.model,
        checkpoint_digest=digest_of(sorted(recorded.runs), recorded.place),
        device=recorded.device or _UNKNOWN,
        dtype=recorded.dtype or _UNKNOWN,
        arguments=(),
        kernels={},
        exercised=(),
        declared=(),
        log=None,
        not_observed=recorded.gaps,
        address=f"'{recorded.place}' ({recorded.tool} {recorded.version})",
    )
