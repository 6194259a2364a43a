"""Tasks' templates: lm-eval's own environment, in a sandbox, each template compiled once.

A template comes with a task's data, from wherever that is; in a sandbox it reaches no attribute
that leads to Python's own functions. As in lm-eval, what an item lacks is an error, not nothing.
"""

from datetime import date
from functools import cache, lru_cache
from typing import Any

import lm_eval.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

_PLAIN = ("builtins", "datetime", "decimal", "jinja2", "uuid")
"""Modules whose values do nothing but say what they are; a picture or an array writes files."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Takes no attribute, and so no method, of a value that is not plain."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ANN401 -- Jinja's
        """Return whether a template may have an attribute."""
        is_plain = type(obj).__module__.partition(".")[0] in _PLAIN or isinstance(obj, date)
        return is_plain and super().is_safe_attribute(obj, attr, value)


@cache
def templates() -> ImmutableSandboxedEnvironment:
    """Return the environment of all templates."""
    theirs = lm_eval.utils.env
    made = _Sandbox(undefined=theirs.undefined, keep_trailing_newline=theirs.keep_trailing_newline)
    made.filters.update(theirs.filters)
    compiled = made.from_string
    made.from_string = lru_cache(maxsize=256)(compiled)  # type: ignore[method-assign, assignment]
    return made


def render_in_sandbox() -> None:
    """Let lm-eval render all templates with these, from now on.

    What a task says of a document is asked for in many places, and by several threads, so that
    no end of this could be told.
    """
    lm_eval.utils.env = templates()
