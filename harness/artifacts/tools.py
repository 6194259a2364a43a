"""Who asks and scores the tasks of a suite."""

from dataclasses import dataclass
from enum import StrEnum


class Tool(StrEnum):
    """Who asks a task and scores its answers."""

    LM_EVAL = "lm-eval"
    NEL = "nel"
    """NeMo Evaluator, in an environment of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NelSpec:
    """NeMo Evaluator's part of a suite: its own configuration, and where it is installed."""

    config: str
    """Path of its YAML."""
    place: str | None = None
    """Environment that holds it, or its Python, as typed; None: looked for."""
    version: str = ""
    """As found in preflight; empty before."""
    digest: str = ""
    """Of how its tasks are asked and of all their items, as it told in preflight."""
    chats: bool = False
    """Whether a task is asked in chats, for which a model needs a template."""
