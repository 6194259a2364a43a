"""What a way to a GO that is not deserved is: a name, how to go it, the cause that must be met."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.drill.scene import Ending, Scene

MODEL = "canary"


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to a GO that is not deserved."""

    name: str
    what: str
    """One line."""
    go: Callable[[Scene], Ending]
    """Goes it, and returns how the command ended that had to notice."""
    cause: str
    """Regular expression: what the ending's message or reasons must say."""


def forget(run: Path, *stages: Any) -> None:  # noqa: ANN401 - stages of any noun
    """Delete what stages have made, so that they are run again."""
    for stage in stages:
        (run / stage.file).unlink(missing_ok=True)
    shutil.rmtree(run / "tasks", ignore_errors=True)
