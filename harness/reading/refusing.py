"""Say in the words of a room what could not be read, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import HarnessError, ReasonCode, UnreadableError


@contextmanager
def refused_as(
    error_class: type[HarnessError], advice: str, *, reason: ReasonCode | None = None
) -> Iterator[None]:
    """Raise what readers refuse as `error_class`, with what to do behind it.

    Args:
        error_class: of the room.
        advice: a sentence, such as `Download it again.`
        reason: None for that of the class; a file that was cut off keeps its own.

    Raises:
        HarnessError: of the class.
    """
    try:
        yield
    except UnreadableError as error:
        own = error.reason if error.reason is not ReasonCode.UNREADABLE else reason
        message = f"{error} {advice}"
        raise error_class(message, reason=own) from error
