"""A bisect from question to answer, which can be killed at any time and goes on where it was."""

import fcntl
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.artifacts import RunDifference, digest_of, load, save
from harness.bisecting.axes import Kind
from harness.bisecting.commits import remove, what_changed
from harness.bisecting.search import Answer, Ending, Outcome, Place, search
from harness.bisecting.trial import (
    Observation,
    Question,
    check_question,
    name_of,
    run_trial,
    tree_of,
)
from harness.comparing import compare_runs
from harness.doors import check_folder, open_regular
from harness.errors import HarnessError, UsageError

STATE_FILE = "bisect.json"
DIFFERENCE_FILE = "difference.json"
_LOCK_FILE = "bisect.lock"
_log = logging.getLogger("harness.bisect")


@dataclass(frozen=True, kw_only=True, slots=True)
class BisectState:
    """What a bisect has seen so far: the whole of what is needed to go on."""

    question: str
    """Digest of the question."""
    seen: Mapping[str, Observation] = field(default_factory=dict)
    """By the place's name and the number of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """How a bisect ended."""

    ending: Ending
    message: str
    """One sentence."""
    suspects: tuple[str, ...]
    """The first bad point, or those among which it is."""
    changed: str
    """Which files the first bad commit changed."""
    last_good: str
    """Run directories, relative to the bisect's folder; empty where there is none."""
    first_bad: str
    difference: RunDifference | None
    difference_note: str
    """Why there is none."""
    seen: Mapping[str, Observation]


def bisect(question: Question, folder: Path) -> Found:
    """Find the first bad point, or say why there is none to be found.

    Args:
        question: what is run, over what.
        folder: of this bisect: its state, worktrees, environments and run directories.

    Raises:
        UsageError: the question makes no sense, or the folder is another bisect's or in use.
    """
    check_question(question)
    with _locked(folder):
        state = _state(question, folder)
        _say_plan(question)
        memory = _without_skipped_ends(question, state.seen)

        def observe(place: Place, number: int) -> Outcome:
            key = f"{name_of(question, place)}-{number}"
            if key not in memory:
                _log.info("%s: starting", key)
                memory[key] = run_trial(question, place, number, folder)
                save(BisectState(question=state.question, seen=memory), folder / STATE_FILE)
            _log.info("%s: %s (%s)", key, memory[key].outcome, memory[key].said)
            return memory[key].outcome

        answer = search(
            [len(axis.points) for axis in question.axes], observe, repeats=question.repeats
        )
        found = _concluded(question, answer, folder, memory)
        _remove_trees(question, folder)
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep the folder from another bisect.

    Raises:
        UsageError: another is at work in it, or it holds something else.
    """
    check_folder(folder)
    others = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if others and _LOCK_FILE not in others:
        message = f"'{folder}' holds files but no bisect. Name an empty folder, or one of a bisect."
        raise UsageError(message)
    folder.mkdir(parents=True, exist_ok=True)
    lock = open_regular(folder / _LOCK_FILE, create=True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        message = f"another bisect works in '{folder}'. Wait for it, or name another folder."
        raise UsageError(message) from None
    finally:
        os.close(lock)


def _state(question: Question, folder: Path) -> BisectState:
    """Return what was seen before; nothing in a new folder.

    Raises:
        UsageError: another question was asked there.
    """
    digest, file = digest_of(question), folder / STATE_FILE
    if not file.exists():
        return BisectState(question=digest)
    state = load(BisectState, file, advice="Name another folder with --out.")
    if state.question != digest:
        message = (
            f"'{folder}' holds a bisect of something else (other ends, command, check or repeats). "
            "Type what was typed then, or name another folder with --out."
        )
        raise UsageError(message)
    return state


def _without_skipped_ends(
    question: Question, seen: Mapping[str, Observation]
) -> dict[str, Observation]:
    """Leave out runs of an end that said nothing: whoever types again has mended the cause."""
    ends = [name_of(question, tuple(end)) for end in zip(*_ends_of(question), strict=True)]
    return {
        key: one
        for key, one in seen.items()
        if one.outcome is not Outcome.SKIP or key.rpartition("-")[0] not in ends
    }


def _ends_of(question: Question) -> list[tuple[int, int]]:
    return [(0, len(axis.points) - 1) for axis in question.axes]


def _say_plan(question: Question) -> None:
    longest = max(len(axis.points) for axis in question.axes)
    most = 2 * question.repeats + len(question.axes) - 1 + max(math.ceil(math.log2(longest - 1)), 0)
    over = ", then ".join(f"{len(axis.points)} of {axis.kind}" for axis in question.axes)
    _log.info("%s: at most %d runs where none is skipped", over, most)


def _concluded(
    question: Question, answer: Answer, folder: Path, memory: Mapping[str, Observation]
) -> Found:
    good, bad = (
        _run_dir(question, place, memory) for place in (answer.last_good, answer.first_bad)
    )
    difference, note = _compare(folder, good, bad)
    if difference is not None:
        save(difference, folder / DIFFERENCE_FILE)
    suspects = _suspects(question, answer)
    return Found(
        ending=answer.ending,
        message=_message(question, answer, suspects),
        suspects=suspects,
        changed=_changed(question, answer),
        last_good=good,
        first_bad=bad,
        difference=difference,
        difference_note=note,
        seen=memory,
    )


def _run_dir(question: Question, place: Place | None, memory: Mapping[str, Observation]) -> str:
    return "" if place is None else memory[f"{name_of(question, place)}-1"].run_dir


def _compare(folder: Path, good: str, bad: str) -> tuple[RunDifference | None, str]:
    if not good or not bad:
        return None, "no good and no bad run stand beside each other"
    try:
        return compare_runs(folder / good, folder / bad), ""
    except HarnessError as error:
        return None, str(error)


def _suspects(question: Question, answer: Answer) -> tuple[str, ...]:
    if answer.axis is None:
        return ()
    points = question.axes[answer.axis].points
    return tuple(points[index].title for index in answer.suspects)


def _changed(question: Question, answer: Answer) -> str:
    if answer.axis is None or answer.ending is not Ending.FOUND:
        return ""
    axis = question.axes[answer.axis]
    if axis.kind is not Kind.COMMIT:
        return ""
    return what_changed(Path(question.repository), axis.points[answer.suspects[0]].value)


def _message(question: Question, answer: Answer, suspects: tuple[str, ...]) -> str:
    kind = "" if answer.axis is None else question.axes[answer.axis].kind.value
    if answer.ending is Ending.FOUND:
        return f"the first bad {kind} is {suspects[0]}"
    if answer.ending is Ending.AMONG and suspects:
        return (
            f"the first bad {kind} is one of {len(suspects)}: the others between could not be run"
        )
    if answer.ending is Ending.AMONG:
        return "more than one axis may be it, for a run between them could not be made"
    if answer.ending is Ending.FLAKY:
        return (
            f"the same run ends otherwise each time, so it or the machine is flaky: {answer.said}"
        )
    if answer.ending is Ending.ALIKE:
        return (
            f"the ends do not differ here: {answer.said}. It is the machine, the data or something "
            "else that is no part of the range"
        )
    return f"an end says nothing: {answer.said}. Mend what ended it, then type the command again"


def _remove_trees(question: Question, folder: Path) -> None:
    for axis in question.axes:
        if axis.kind is Kind.COMMIT:
            for point in axis.points:
                tree = tree_of(folder, point.name).absolute()
                if tree.exists():
                    remove(Path(question.repository), tree)
