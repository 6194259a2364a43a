"""Whether two arms may be compared at all.

A difference of scores means something only if everything but the model is the same: the suite,
lm-eval, the arguments that shape answers, the engine and the type it computes in, and item by
item the very question. The first thing that differs is named and nothing is judged. Kernels and
devices may differ, because they are part of what is being judged; the verdict's scope names them.

An arm that has fewer items is not refused here: it is a missing score, which the verdict reports.
"""

import json
from collections.abc import Iterator
from itertools import zip_longest

from harness.artifacts import Arm, Sample, Scorecard, Suite
from harness.errors import IncomparableError
from harness.reading import read_json_object_text, refused_as


def check_conditions(suite: Suite, baseline: Arm, candidate: Arm) -> None:
    """Refuse arms that were not asked under the same conditions.

    Raises:
        IncomparableError: the first difference, with both values.
    """
    _check_roles(baseline.scorecard, candidate.scorecard)
    _check_suite(suite, baseline.scorecard)
    _check_suite(suite, candidate.scorecard)
    for what, left, right in _conditions(baseline.scorecard, candidate.scorecard):
        if left != right:
            message = (
                f"the arms differ in {what}: baseline '{left}', candidate '{right}'. "
                "Score both again under the same conditions."
            )
            raise IncomparableError(message)


def check_items(suite: Suite, baseline: Arm, candidate: Arm) -> None:
    """Refuse arms that did not answer the same questions, as far as both answered.

    Raises:
        IncomparableError: the first difference, with both values.
    """
    for task in suite.tasks:
        _check_items(
            task.name, baseline.samples.get(task.name, ()), candidate.samples.get(task.name, ())
        )


def _check_roles(baseline: Scorecard, candidate: Scorecard) -> None:
    """Refuse arms that cannot be what they are given as: a baseline is another, unquantized model.

    What answers behind somebody else's address is not known, so it is taken for what it is said to
    be.
    """
    left, right = baseline.deployment, candidate.deployment
    if candidate.arm == "baseline":
        message = (
            f"the scores that are given as the candidate's are those of a baseline, "
            f"'{right.model}'. Name the baseline first and the candidate second."
        )
        raise IncomparableError(message)
    if baseline.ended is not None:
        message = (
            f"the baseline's scoring ended early, at task '{baseline.ended.task}'. Score all of it."
        )
        raise IncomparableError(message)
    if left.declared:
        message = (
            f"the baseline '{left.model}' is quantized ({', '.join(left.declared)}). A baseline is "
            "the unquantized model: name it first and the candidate second."
        )
        raise IncomparableError(message)
    if left.checkpoint_digest == right.checkpoint_digest and not left.address:
        message = (
            f"both arms are the same model: the files of '{left.model}' and '{right.model}' have "
            f"the digest {left.checkpoint_digest:.12}. Compare with the unquantized model."
        )
        raise IncomparableError(message)


def _check_suite(suite: Suite, scorecard: Scorecard) -> None:
    if scorecard.suite_digest != suite.digest:
        message = (
            f"the {scorecard.arm} was scored with another suite: '{scorecard.suite}' "
            f"({scorecard.suite_digest[:12]}), but '{suite.name}' is {suite.digest[:12]}. "
            f"Score it again with '{suite.name}' as it is now."
        )
        raise IncomparableError(message)
    ended = scorecard.ended
    if ended is not None and all(task.name != ended.task for task in suite.tasks):
        message = (
            f"the {scorecard.arm}'s scoring is said to have ended early at task '{ended.task}', "
            f"which '{suite.name}' does not have. Score it again."
        )
        raise IncomparableError(message)


def _conditions(baseline: Scorecard, candidate: Scorecard) -> Iterator[tuple[str, str, str]]:
    """Yield what must be equal, with both values, in the order in which it is reported."""
    yield "lm-eval's version", baseline.lm_eval_version, candidate.lm_eval_version
    left, right = baseline.deployment, candidate.deployment
    if not (left.address and right.address):
        # Of two deployments that somebody else runs the engines are a part of what is judged.
        yield "engine", left.engine, right.engine
        yield "the engine's version", left.version, right.version
    yield "the type of the arithmetic", left.dtype, right.dtype
    for task in sorted(baseline.generation.keys() & candidate.generation.keys()):
        yield from _arguments(task, baseline.generation[task], candidate.generation[task])


def _arguments(task: str, baseline: str, candidate: str) -> Iterator[tuple[str, str, str]]:
    """Yield each argument that shapes a task's answers: shots, template, seed, budget, stops."""
    with refused_as(IncomparableError, "Score both arms again."):
        left = read_json_object_text(baseline, f"what the baseline was asked in '{task}'")
        right = read_json_object_text(candidate, f"what the candidate was asked in '{task}'")
    for name in sorted(left.keys() | right.keys()):
        what = f"{name} of task '{task}'"
        yield what, json.dumps(left.get(name)), json.dumps(right.get(name))


def _check_items(task: str, baseline: tuple[Sample, ...], candidate: tuple[Sample, ...]) -> None:
    for index, (left, right) in enumerate(zip_longest(baseline, candidate)):
        if left is None or right is None:
            return
        ours, theirs = identity(left), identity(right)
        differing = next((name for name, value in ours.items() if value != theirs[name]), None)
        if differing is not None:
            message = (
                f"task '{task}', item {index}: {differing} differs: baseline "
                f"'{ours[differing]}', candidate '{theirs[differing]}'. "
                "The arms did not answer the same items in the same order; score both again."
            )
            raise IncomparableError(message)


def identity(sample: Sample) -> dict[str, str | int]:
    """Return what makes two samples the same item."""
    return {
        "doc_id": sample.doc_id,
        "repeat": sample.repeat,
        "doc_hash": sample.doc_hash,
        "prompt_hash": sample.prompt_hash,
        "target_hash": sample.target_hash,
        "cluster": sample.cluster,
    }
