"""Keep what several checks complain about, so that a user mends everything at once."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from harness.errors import UsageError

T = TypeVar("T")


class Problems:
    """Runs checks one after another and keeps what they complain about."""

    def __init__(self) -> None:
        self.found: list[UsageError] = []

    def attempt(self, check: Callable[[], T]) -> T | None:
        """Return what `check` returns; None where it complained."""
        try:
            return check()
        except UsageError as error:
            if str(error) not in map(str, self.found):  # two checks may meet the same
                self.found.append(error)
            return None

    def note(self, errors: Iterable[UsageError]) -> None:
        """Keep what a check found that finds several things."""
        known = set(map(str, self.found))
        self.found += [error for error in errors if str(error) not in known]

    def demand(self, value: T | None) -> T:
        """Return `value`; None means that what should have made it has complained.

        Raises:
            UsageError: it has.
        """
        if value is None:
            self.raise_any()
            raise AssertionError
        return value

    def raise_any(self) -> None:
        """Raise what was found, if anything.

        Raises:
            UsageError: the one problem, or all of them in one message.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise self.found[0]
        lines = "\n".join(f"  {n}. {error}" for n, error in enumerate(self.found, start=1))
        message = f"{len(self.found)} problems, nothing was started:\n{lines}"
        raise UsageError(message, reason=self.found[0].reason)
