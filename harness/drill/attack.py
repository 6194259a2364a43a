"""What an attack is: a way to a GO that is not deserved, and the cause that must stop it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.drill.sandbox import Ending, Sandbox

Tamper = Callable[[Sandbox], Ending]
"""Tampers, and returns how the command ended that had to notice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One way to a GO that is not deserved."""

    name: str
    what: str
    """One line."""
    tamper: Tamper
    cause: str
    """Regular expression: what the ending's message or reasons must say."""


class Attacks:
    """The attacks that a module declares: decorates the function that tampers."""

    def __init__(self) -> None:
        self.declared: list[Attack] = []

    def __call__(self, what: str, cause: str, *, name: str = "") -> Callable[[Tamper], Attack]:
        """Return a decorator; the attack is called like the function unless it has a `name`."""

        def declare(tamper: Tamper) -> Attack:
            called = name or tamper.__name__.strip("_").replace("_", "-")
            attack = Attack(name=called, what=what, tamper=tamper, cause=cause)
            self.declared.append(attack)
            return attack

        return declare


def forget(run: Path, *stages: Any) -> None:  # noqa: ANN401 - stages of any noun
    """Delete what stages have made, so that they are run again."""
    for stage in stages:
        (run / stage.file).unlink(missing_ok=True)
    shutil.rmtree(run / "tasks", ignore_errors=True)
