r"""Regular expressions from others' files, which may not backtrack without end.

Most are as simple as `.*mlp\.gate$` and are matched at once. One with a repeated group, or with
several repetitions of which each could take a part of a long name, is matched in a child process
under a limit of work.

Wildcards need no such care: fnmatch makes of each `*` a group that never gives back what it took,
so that a name is gone through once for each `*`.
"""

import atexit
import re
import warnings
from functools import cache, lru_cache
from typing import NamedTuple

from harness.errors import UnreadableError
from harness.reading import bounds
from harness.reading.limited import LimitedChild, TooMuchWorkError

_REPETITION = re.compile(r"\\.|(?P<of_group>\)[*+{?])|(?P<unbounded>[*+{])", re.DOTALL)


class Refused(NamedTuple):
    """Why a text is no pattern that can be used."""

    why: str


def compiled(pattern: str) -> re.Pattern[str] | Refused:
    """Return a regular expression, or why it is none."""
    return _compiled(pattern)


def fits(pattern: str, name: str) -> bool:
    """Return whether a regular expression fits a name from its beginning; a broken one fits none.

    Raises:
        UnreadableError: it needs more work than its bound.
    """
    found = _compiled(pattern)
    if isinstance(found, Refused):
        return False
    if _num_steps(pattern, len(name)) <= bounds.MATCH_STEPS:
        return found.match(name) is not None
    return _fits_within_limits(pattern, name)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str] | Refused:
    if len(pattern) > bounds.PATTERN_CHARACTERS:
        return Refused(f"it has more than {bounds.PATTERN_CHARACTERS} characters")
    try:
        with warnings.catch_warnings(action="ignore"):
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return Refused(str(error))


def _num_steps(pattern: str, num_characters: int) -> int:
    """Return about how many steps matching takes at the worst."""
    exponent = _num_repetitions(pattern)
    return bounds.MATCH_STEPS + 1 if exponent is None else num_characters**exponent


@lru_cache(maxsize=4096)
def _num_repetitions(pattern: str) -> int | None:
    """Return how many parts may take any number of characters; None where groups are repeated."""
    found = list(_REPETITION.finditer(pattern))
    if any(one["of_group"] for one in found) or re.search(r"\\[1-9]|\(\?[P(]", pattern):
        return None  # a group that comes again, by a number or a name
    return sum(one["unbounded"] is not None for one in found)


@lru_cache(maxsize=1 << 20)
def _fits_within_limits(pattern: str, name: str) -> bool:
    try:
        [answer] = _child().ask(pattern=pattern, names=[name])
    except TooMuchWorkError as error:
        where = f"the regular expression '{pattern:.200}'"
        why = f"needs {error}, on the name '{name:.200}'; mend the list that holds it"
        raise UnreadableError(where, why) from error
    return bool(answer)


@cache
def _child() -> LimitedChild:
    """Return the one child of this process that matches."""
    child = LimitedChild("match", cpu_s=bounds.MATCH_CPU_S)
    atexit.register(child.end)
    return child
