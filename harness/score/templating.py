"""Tasks' templates: lm-eval's own environment, in a sandbox, each template compiled once.

A template comes with a task's data, from wherever that is; in a sandbox it reaches no attribute
that leads to Python's own functions. As in lm-eval, what an item lacks is an error, not nothing.
"""

from functools import cache, lru_cache

import lm_eval.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment


@cache
def templates() -> ImmutableSandboxedEnvironment:
    """Return the environment of all templates."""
    theirs = lm_eval.utils.env
    made = ImmutableSandboxedEnvironment(
        undefined=theirs.undefined, keep_trailing_newline=theirs.keep_trailing_newline
    )
    made.filters.update(theirs.filters)
    compiled = made.from_string
    made.from_string = lru_cache(maxsize=256)(compiled)  # type: ignore[method-assign, assignment]
    return made
