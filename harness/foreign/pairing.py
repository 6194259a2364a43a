"""Two arms of which other tools recorded at least one, ready for the gate."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import Arm, Suite
from harness.errors import IncomparableError
from harness.foreign.arms import BESIDE_WEIGHTS, align, same_dtype, to_arm
from harness.foreign.compare import check_arms, check_asked, check_beside_own, check_tasks
from harness.foreign.inspect_ai import is_inspect_ai, read_inspect_ai
from harness.foreign.lm_eval import TOOL as LM_EVAL
from harness.foreign.lm_eval import is_lm_eval, read_lm_eval
from harness.foreign.nel import is_nel, read_nel
from harness.foreign.recorded import Recorded
from harness.foreign.suites import directions_of, passed_over

_READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Recorded]], ...] = (
    (is_nel, read_nel),
    (is_lm_eval, read_lm_eval),
    (is_inspect_ai, read_inspect_ai),
)
"""Of each tool: whether a path is its, and what reads it; the first that knows a path reads it."""

_UNVERIFIED = (
    "no files were verified, and which model answered is taken for what the records say; that the "
    "baseline is unquantized is not known"
)


class Pairing(NamedTuple):
    """Both arms, and what a verdict on them does not hold for."""

    baseline: Arm
    candidate: Arm
    scope: tuple[str, ...]


def is_recorded(path: Path) -> bool:
    """Return whether a folder or a file holds scores of a tool that is read here."""
    return any(knows(path) for knows, _ in _READERS)


def read_recorded(path: Path) -> Recorded:
    """Read an arm that another tool scored; `is_recorded` says whether there is one.

    Raises:
        UsageError: it cannot be read, or is incomplete.
    """
    return next(read for knows, read in _READERS if knows(path))(path)


def pair_recorded(
    baseline: Recorded, candidate: Recorded, suite: Suite, *, is_named: bool
) -> Pairing:
    """Pair two arms that other tools scored.

    Args:
        baseline: the unquantized model's.
        candidate: the quantized one's.
        suite: what is judged, with which margins.
        is_named: whether a suite's file was named, whose settings must have been asked for.

    Raises:
        IncomparableError: they were not asked and scored alike.
        SuiteError: a metric is not recorded, or is no number.
    """
    check_arms(baseline, candidate)
    for spec in suite.tasks:
        ours, theirs = baseline.members(spec.asked), candidate.members(spec.asked)
        if ours and theirs:
            _check_members(spec.name, [t.name for t in ours], [t.name for t in theirs])
            check_tasks(ours, theirs, one_tool=baseline.tool == candidate.tool)
    for recorded in (baseline, candidate) if is_named else ():
        check_asked(recorded, suite)
    arms = to_arm(baseline, suite, arm="baseline"), to_arm(candidate, suite, arm="candidate")
    subject = f"{_shown(candidate)}, compared with {_shown(baseline)}"
    lines = [_UNVERIFIED, *passed_over(baseline, suite), *directions_of(baseline, suite)]
    lines += [*baseline.notes, *candidate.notes]
    if baseline.tool != candidate.tool:
        tools = f"{baseline.tool} and {candidate.tool}"
        lines.append(f"the arms were recorded by {tools}: what only one records is not compared")
    if baseline.engine != candidate.engine:
        engines = f"{baseline.engine} and by {candidate.engine}"
        lines.append(f"the arms were answered by {engines}: {BESIDE_WEIGHTS}")
    return Pairing(*same_dtype(*arms), (subject, *lines))


def pair_with_own(
    recorded: Recorded, own: Arm, suite: Suite, *, place: Path, is_baseline: bool
) -> Pairing:
    """Pair an arm that another tool scored with one of ours.

    Args:
        recorded: the other tool's.
        own: scored by harness.
        suite: that ours answered.
        place: folder of ours.
        is_baseline: whether the other tool's is the baseline.

    Raises:
        IncomparableError: nothing shows that both were asked and scored alike, or both are of one
            model.
        SuiteError: a metric is not recorded, or is no number.
    """
    if recorded.scorer != LM_EVAL:
        message = (
            f"the answers in '{recorded.place}' were scored by {recorded.scorer}, those in "
            f"'{place}' by lm-eval, as harness does. Score both with the same tool."
        )
        raise IncomparableError(message)
    check_beside_own(recorded, own, place)
    check_asked(recorded, suite)
    theirs = to_arm(recorded, suite, arm="baseline" if is_baseline else "candidate")
    own, theirs, notes = align(own, theirs, place=str(place))
    own, theirs = same_dtype(own, theirs)
    shown = f"the scores of harness in '{place}'"
    scope = (*notes, *recorded.notes, _UNVERIFIED)
    if is_baseline:
        return Pairing(theirs, own, (f"{shown}, compared with {_shown(recorded)}", *scope))
    return Pairing(own, theirs, (f"{_shown(recorded)}, compared with {shown}", *scope))


def _check_members(name: str, ours: list[str], theirs: list[str]) -> None:
    if ours != theirs:
        message = (
            f"the arms differ in the tasks of group '{name}': baseline {', '.join(ours)}, "
            f"candidate {', '.join(theirs)}. Score both again with the same version of it."
        )
        raise IncomparableError(message)


def _shown(recorded: Recorded) -> str:
    tool = f"{recorded.tool} {recorded.version}"
    return f"'{recorded.model}' as {tool} recorded it in '{recorded.place}'"
