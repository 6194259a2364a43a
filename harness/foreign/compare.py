"""Whether what other tools recorded of two arms may be compared at all.

The gate asks the same of every pair of arms, item by item. Here is asked what only records of other
tools can have: another scorer, one arm given twice, conditions under the tool's own names, items
that one arm lacks or has twice.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from harness.artifacts import Arm, Suite, to_json
from harness.errors import IncomparableError
from harness.foreign.recorded import Recorded, RecordedTask, digest_of_told
from harness.foreign.weights import is_same_place

_AGAIN = "Score both again under the same conditions."


def check_arms(baseline: Recorded, candidate: Recorded) -> None:
    """Refuse arms that another tool scored and that are not two models scored alike.

    Raises:
        IncomparableError: with what differs, or does not.
    """
    if baseline.scorer != candidate.scorer:
        message = (
            f"the answers in '{baseline.place}' were scored by {baseline.scorer}, those in "
            f"'{candidate.place}' by {candidate.scorer}. Score both with the same tool."
        )
        raise IncomparableError(message)
    is_same_run = bool(baseline.runs & candidate.runs)
    is_same_model = is_same_place(baseline.loaded, candidate.loaded) or (
        baseline.identity != "" and baseline.identity == candidate.identity
    )
    if is_same_run or is_same_model:
        what = "hold the same run" if is_same_run else f"are of the same model '{candidate.model}'"
        message = (
            f"'{baseline.place}' and '{candidate.place}' {what}. Name the unquantized model's "
            "results first and the candidate's second."
        )
        raise IncomparableError(message)


def check_beside_own(recorded: Recorded, own: Arm, place: Path) -> None:
    """Refuse an arm of another tool's that is the same model as an arm of ours, or the same run.

    Args:
        recorded: the other tool's.
        own: ours.
        place: folder of ours.

    Raises:
        IncomparableError: it is.
    """
    card, served = own.scorecard, own.scorecard.deployment
    exported = recorded.exported
    is_same_run = exported is not None and exported.scorecard == digest_of_told(to_json(card))
    is_same_model = not served.address and (
        (exported is not None and exported.checkpoint == served.checkpoint_digest)
        or is_same_place(recorded.loaded, served.model)
    )
    if is_same_run or is_same_model:
        what = "hold the same run" if is_same_run else f"are of the same model '{served.model}'"
        message = (
            f"'{recorded.place}' and '{place}' {what}. Name the unquantized model's scores first "
            "and the candidate's second."
        )
        raise IncomparableError(message)


def check_asked(recorded: Recorded, suite: Suite) -> None:
    """Refuse tasks that were asked otherwise than a suite's file says.

    Raises:
        IncomparableError: with what differs.
    """
    for spec in suite.tasks:
        asks = {"num_fewshot": spec.num_fewshot, "apply_chat_template": suite.apply_chat_template}
        for task in recorded.members(spec.asked):
            for name, wanted in asks.items():
                found = task.conditions.get(name)
                if found is not None and found != wanted:
                    message = (
                        f"task '{task.name}' in '{recorded.place}' was asked with {name} {found}, "
                        f"and suite '{suite.name}' asks for {wanted}. Score it as the suite asks."
                    )
                    raise IncomparableError(message)


def check_tasks(
    baseline: Iterable[RecordedTask], candidate: Iterable[RecordedTask], *, one_tool: bool
) -> None:
    """Refuse tasks that were asked under different conditions, or with different items.

    Args:
        baseline: its tasks.
        candidate: its, in the same order.
        one_tool: whether one tool recorded both; of two, what only one records is not compared.

    Raises:
        IncomparableError: with what differs.
    """
    for ours, theirs in zip(baseline, candidate, strict=True):
        _check_conditions(ours, theirs, one_tool=one_tool)
        _check_items(ours, theirs)


def _check_conditions(ours: RecordedTask, theirs: RecordedTask, *, one_tool: bool) -> None:
    for what in dict.fromkeys((*ours.conditions, *theirs.conditions)):
        if not one_tool and not (what in ours.conditions and what in theirs.conditions):
            continue
        left, right = ours.conditions.get(what), theirs.conditions.get(what)
        if left != right:
            message = (
                f"the arms differ in {what} of task '{ours.name}': baseline {_spelled(left)}, "
                f"candidate {_spelled(right)}. {_AGAIN}"
            )
            raise IncomparableError(message)


def _check_items(ours: RecordedTask, theirs: RecordedTask) -> None:
    left, right = (Counter((a.item, a.repeat) for a in task.answers) for task in (ours, theirs))
    for arm, count in (("baseline", left), ("candidate", right)):
        twice = next((key for key, n in count.items() if n > 1), None)
        if twice is not None:
            message = (
                f"task '{ours.name}': the {arm} has item {_item(*twice)} twice, so that nobody "
                "knows which answer counts. Score it again."
            )
            raise IncomparableError(message)
    for arm, own, other in (("baseline", left, right), ("candidate", right, left)):
        missing = next((key for key in other if key not in own), None)
        if missing is not None:
            message = (
                f"task '{ours.name}': the {arm} has no answer to item {_item(*missing)}, which the "
                "other arm has. Score both again with the same items."
            )
            raise IncomparableError(message)


def _item(item: str, repeat: int) -> str:
    return f"'{item}'" + (f", repeat {repeat}" if repeat else "")


def _spelled(value: object) -> str:
    """Return a value as a person can compare it, cut where it is long."""
    text = "nothing recorded" if value is None else json.dumps(value, default=str, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:120]}..."  # noqa: PLR2004 -- one line
