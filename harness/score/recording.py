"""What became of each request, kept apart from what it scored.

lm-eval turns every failure into a wrong answer or into the end of the run: it never reads why a
generation ended, cuts prompts that do not fit with a warning, and has no word for a request that
failed. So the model behind it notes each of these here, by item, and the notes are joined with
lm-eval's samples afterwards. Nothing here knows lm-eval or a model: the client of a server notes
the same things as the model in this process.

An item that consists of several requests (the options of a multiple-choice question) is as bad
as its worst request.
"""

import logging
from dataclasses import dataclass
from enum import IntEnum

_log = logging.getLogger("harness.score")
_PROGRESS_PARTS = 4


class Finish(IntEnum):
    """Why an answer ended, the worst last."""

    SCORED = 0
    """Nothing was generated: the log-likelihood of a given text was taken."""
    STOP = 1
    """At a stop string or the end token."""
    LENGTH = 2
    """At the answer's budget."""
    THOUGHTS_CUT = 3
    """The thoughts before it outran theirs, so that there is no answer."""
    TIMEOUT = 4
    """It did not come in time; it is not asked for again."""
    ERROR = 5
    """The request failed: the answer is unknown, not wrong."""


Item = tuple[str, int, int]
"""Name of a task, the item's number in it, and which of the item's answers it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """How one answer was generated; what is not known is None, never 0."""

    num_tokens: int | None = None
    """Of thoughts and answer, with the token that ended it."""
    num_thought_tokens: int | None = None
    begun_s: float | None = None
    """When it was asked, on the monotonic clock."""
    seconds: float | None = None
    """From there to its last token."""


UNKNOWN = Course()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one answer."""

    finish: Finish
    prompt_cut: bool
    """Whether a prompt did not fit and lost tokens at its beginning."""
    error: str | None = None
    course: Course = UNKNOWN


class Recorder:
    """The outcomes of one task's answers."""

    def __init__(self) -> None:
        self._outcomes: dict[Item, Outcome] = {}

    @property
    def num_prompts_cut(self) -> int:
        """Number of items with a prompt that did not fit."""
        return len({item[:2] for item, outcome in self._outcomes.items() if outcome.prompt_cut})

    @property
    def courses(self) -> tuple[Course, ...]:
        """How each answer was generated, in the order in which they were noted."""
        return tuple(outcome.course for outcome in self._outcomes.values())

    def note(
        self,
        item: Item,
        finish: Finish,
        *,
        prompt_cut: bool = False,
        error: str | None = None,
        course: Course = UNKNOWN,
    ) -> None:
        """Note the end of one request of `item`."""
        before = self._outcomes.get(item)
        if before is not None:
            finish = max(finish, before.finish)
            prompt_cut = prompt_cut or before.prompt_cut
            error = before.error or error
        self._outcomes[item] = Outcome(
            finish=finish,
            prompt_cut=prompt_cut,
            error=error,
            course=course,
        )

    def of(self, item: Item) -> Outcome:
        """Return what became of an answer.

        One that nobody noted is an error: it came from nowhere.
        """
        nobody = Outcome(finish=Finish.ERROR, prompt_cut=False, error="no request was noted")
        return self._outcomes.get(item, nobody)


def log_progress(task: str, done: int, total: int, *, step: int = 1) -> None:
    """Say how far a task is, each time another part of it is done.

    Args:
        task: its name.
        done: requests that are answered.
        total: requests of the task.
        step: how many of `done` are new.
    """
    part = max(total // _PROGRESS_PARTS, 1)
    if (done - step) // part < done // part and done < total:
        _log.info("score: %s %d of %d", task, done, total)
