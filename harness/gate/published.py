"""Whether the baseline scores as is published of it.

A quantized model is compared with a baseline that was asked in the same way, so a wrong way shows
in neither: both lose together. It costs more than any quantization (a chat template left out, no
room to think), and it hides what a quantization costs, for what is asked wrongly is easy to keep.
So a suite may name a published score. A baseline that is that very model, and of which the interval
of its score lies wholly outside what is published and tolerated, ends the run INCONCLUSIVE, with
what is different in how it was asked. The baseline's sampling is allowed for; that of the published
score is a part of the tolerance. Where nothing is known of the baseline's score, nothing shows that
it was asked rightly, and the run is INCONCLUSIVE too.

Which model a baseline is: by the digest of its files where the published score gives one, else by
its name. A Hub id is compared whole, a folder of the Hub's cache by the id in its path, any other
folder by its name alone. What its configuration calls it shows what it was made from, which is no
proof: a fine-tuned copy has that name too. Another model's score is not compared, and that is said.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from harness.artifacts import (
    DEFAULT_BUDGET,
    Decision,
    Plausibility,
    Published,
    Sample,
    Scale,
    Scorecard,
    Suite,
    TaskSpec,
    TaskVerdict,
    in_unit,
    mean_of,
)
from harness.errors import ReasonCode, UnreadableError
from harness.gate.forms import bounds_of_own
from harness.gate.objections import Objection
from harness.gate.pairs import TaskPairs
from harness.gate.tango import Bounds
from harness.reading import read_json_object_text

_CACHED = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)")


class BaselineNames(NamedTuple):
    """What a baseline is called."""

    typed: str
    """As it was named: a Hub id, a folder, a bundle."""
    configured: tuple[str, ...] = ()
    """By its own configuration."""


def beside_published(
    tasks: Sequence[TaskVerdict],
    paired: Sequence[TaskPairs],
    suite: Suite,
    baseline: Scorecard,
    names: BaselineNames,
) -> tuple[TaskVerdict, ...]:
    """Return the tasks with what is published of them, where the suite says it."""
    return tuple(
        dataclasses.replace(task, plausibility=_compare(pairs, suite, baseline, names))
        for task, pairs in zip(tasks, paired, strict=True)
    )


def published_objections(tasks: Sequence[TaskVerdict]) -> Iterator[Objection]:
    """Yield what is unlike what is published, or where nothing is known of the baseline's score.

    Of advisory tasks too, for all are asked alike.
    """
    for task in tasks:
        found = task.plausibility
        if found is None or found.is_plausible or not found.is_of_baseline:
            continue
        is_unlike = found.is_plausible is False
        unlike, unknown = ReasonCode.BASELINE_UNLIKE_PUBLISHED, ReasonCode.NOT_ENOUGH_EVIDENCE
        reason = unlike if is_unlike else unknown
        yield Objection(reason, Decision.INCONCLUSIVE, f"{task.task}: {found.message}")


def published_scope(tasks: Sequence[TaskVerdict]) -> tuple[str, ...]:
    """Return what was compared with a published score and what was not, a line a task."""
    found = ((task.task, task.plausibility) for task in tasks)
    return tuple(f"{name}: {one.message}" for name, one in found if one is not None)


def protocol_note(suite: Suite, task: TaskSpec, model: str, budget: int | None) -> str:
    """Return what is known before a run: in what a suite asks otherwise than is published.

    Args:
        suite: what will be asked.
        task: of the suite.
        model: the baseline, as it was named.
        budget: tokens of an answer at most, thoughts included; None where that is not known.
    """
    one = task.published
    if one is None:
        return ""
    if not _recognized(one, [model], ""):
        return f"{one.source} has {one.model}, which the baseline is not known to be"
    differing = "; ".join(differences(one, suite, task, budget))
    return f"{one.source} asked otherwise: {differing}" if differing else ""


def differences(
    published: Published, suite: Suite, task: TaskSpec, budget: int | None
) -> tuple[str, ...]:
    """Return in what the published protocol and the suite differ, as far as both are known.

    Args:
        published: says how the published score was measured.
        suite: says how the baseline is asked.
        task: likewise.
        budget: tokens of an answer at most, thoughts included; None where that is not known.
    """
    there = published.protocol
    answer = budget
    if budget is not None and there.thinking_budget is not None:
        answer = budget - suite.thinking_budget_of(task)
    pairs: tuple[tuple[str, object, object], ...] = (
        ("chat template", there.chat_template, suite.apply_chat_template),
        ("worked examples", there.num_fewshot, task.num_fewshot),
        ("thinking", there.thinking, suite.thinking),
        ("tokens for thoughts", there.thinking_budget, suite.thinking_budget_of(task)),
        ("tokens of an answer", there.max_gen_toks, answer),
        ("tokens of prompt and answer", there.max_model_len, suite.max_model_len),
        ("temperature", there.temperature, task.temperature),
        ("top_p", there.top_p, task.top_p),
        ("top_k", there.top_k, task.top_k),
        ("answers to each item", there.repeats, task.repeats),
        ("metric", there.metric, task.metric),
        ("filter", there.filter, task.filter),
        ("items", there.items, task.items),
    )
    return tuple(
        f"{what}: {_spelled(theirs)} there, {_spelled(ours)} here"
        for what, theirs, ours in pairs
        if theirs is not None and ours is not None and theirs != ours
    )


def _compare(
    task: TaskPairs, suite: Suite, baseline: Scorecard, names: BaselineNames
) -> Plausibility | None:
    one = task.spec.published
    if one is None:
        return None
    served = baseline.deployment
    digest = "" if served.address else served.checkpoint_digest
    is_it = _recognized(one, [names.typed, served.model], digest)
    if not is_it:
        message = _stranger(one, names)
        return Plausibility(published=one, is_plausible=None, is_of_baseline=False, message=message)
    bounds = _interval(task, suite.confidence)
    if bounds is None:
        message = f"{_said(one, task)}; not compared, for answers of the baseline are unknown"
        return Plausibility(published=one, is_plausible=None, message=message)
    spread = one.value - one.tolerance, one.value + one.tolerance
    is_plausible = bounds.low <= spread[1] and bounds.high >= spread[0]
    differing = differences(one, suite, task.spec, _budget(baseline, suite, task.spec))
    return Plausibility(
        published=one,
        is_plausible=is_plausible,
        low=bounds.low,
        high=bounds.high,
        differences=differing,
        message=_message(task, one, bounds, differing, is_plausible=is_plausible),
    )


def _recognized(published: Published, names: Sequence[str], digest: str) -> bool:
    if published.digest is not None:
        return digest.startswith(published.digest)
    return any(_is_named(published.model, name) for name in names)


def _is_named(published: str, name: str) -> bool:
    """Return whether a baseline that is called `name` is the published model, by its name."""
    wanted, found = published.lower().rstrip("/"), name.lower().rstrip("/")
    if not found:
        return False
    cached = _CACHED.search(found)
    if cached:
        found = f"{cached['owner']}/{cached['name']}"
    is_folder = not cached and (found.startswith(("/", ".", "~")) or found.count("/") != 1)
    if is_folder or "/" not in wanted:
        return PurePath(found).name == PurePath(wanted).name
    return found == wanted


def _stranger(published: Published, names: BaselineNames) -> str:
    said = (
        f"{published.source} has {published.value:g} of {published.model}; not compared, for the "
        f"baseline is '{names.typed}'"
    )
    if any(_is_named(published.model, name) for name in names.configured):
        said += (
            f" (its configuration names {published.model}: if it is that very model, give the "
            "published score its digest)"
        )
    return said


def _interval(task: TaskPairs, confidence: float) -> Bounds | None:
    """Return the bounds of the baseline's score, in the metric's own unit; None if unknown.

    An answer that failed or came too late may have been any: it is wrong for the lower bound and
    right for the upper one. Nothing bounds a text that was not read.
    """
    answers, known = task.sides[0].samples, _known(task)
    if (
        task.sides[0].score is None
        or not known
        or (task.is_perplexity and len(known) < len(answers))
    ):
        return None
    worst_of_all, best_of_all = (
        [a if _is_known(a) else dataclasses.replace(a, value=end) for a in answers]
        for end in (0.0, 1.0)
    )
    own = Bounds(
        bounds_of_own(task.spec, worst_of_all, confidence=confidence).low,
        bounds_of_own(task.spec, best_of_all, confidence=confidence).high,
    )
    scale = _scale(task)
    if scale is Scale.SHARE:
        worst, best = task.spec.value_range or (0.0, 1.0)
        ends = [worst + share * (best - worst) for share in own]
    else:
        ends = [in_unit(mean, scale) for mean in own]
    return Bounds(*sorted(ends))


def _is_known(answer: Sample) -> bool:
    return answer.is_known and answer.finish != "timeout"


def _known(task: TaskPairs) -> list[Sample]:
    """Return the baseline's answers that came, and in time."""
    return [answer for answer in task.sides[0].samples if _is_known(answer)]


def _scale(task: TaskPairs) -> Scale:
    score = task.sides[0].score
    return Scale.SHARE if score is None else score.scale


def _budget(baseline: Scorecard, suite: Suite, task: TaskSpec) -> int | None:
    """Return the tokens of an answer at most, thoughts included; None where nothing is generated.

    The scorecard's own words are read, for they are what was asked.
    """
    try:
        said = baseline.generation.get(task.name, "")
        asked = read_json_object_text(said, f"what '{task.name}' was asked")
    except UnreadableError:
        return None
    generation = asked.get("generation")
    if asked.get("output_type") != "generate_until" or not isinstance(generation, Mapping):
        return None
    answer = generation.get("max_gen_toks", DEFAULT_BUDGET)
    return answer + suite.thinking_budget_of(task) if isinstance(answer, int) else None


def _message(
    task: TaskPairs,
    published: Published,
    bounds: Bounds,
    differing: Sequence[str],
    *,
    is_plausible: bool,
) -> str:
    known = _known(task)
    mean = in_unit(mean_of(known), _scale(task))
    if task.spec.value_range:
        worst, best = task.spec.value_range
        mean = worst + mean * (best - worst)
    low, high, value = (_number(number, task) for number in (*bounds, mean))
    said = f"the baseline scores {value}, between {low} and {high}, and {_said(published, task)}"
    if num_unknown := len(task.sides[0].samples) - len(known):
        said += f" ({num_unknown} of its answers are unknown and may be any)"
    asked = "; ".join(differing)
    if is_plausible:
        return said + (f" (asked otherwise: {asked})" if asked else "")
    if not asked:
        asked = "as far as it is told, in nothing"
    return (
        f"{said}. It was asked otherwise ({asked}). A wrong template, too few tokens or another "
        "sampling cost more than any quantization: correct the suite, or its published score"
    )


def _said(published: Published, task: TaskPairs) -> str:
    value, tolerance = (_number(n, task) for n in (published.value, published.tolerance))
    return f"published of {published.model} is {value} +- {tolerance} ({published.source})"


def _number(value: float, task: TaskPairs) -> str:
    is_share = task.spec.value_range is None and _scale(task) is Scale.SHARE
    return f"{value:.1%}" if is_share else f"{value:.5g}"


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
