"""Find what somebody meant: files by short name, and the nearest names when nothing fits."""

import difflib
import os
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from harness.errors import UsageError

Name = TypeVar("Name", bound=Hashable)


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return at most `count` of the known names, the most similar first."""
    return difflib.get_close_matches(name, sorted(set(known)), n=count, cutoff=0.3)


def first_double(names: Iterable[Name]) -> Name | None:
    """Return the first of the names that is there more than once; None where each is alone."""
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), None)


def choose_file(name: str, folder: Path, kind: str, error: type[UsageError]) -> Path:
    """Return the YAML file that `name` means: a path to one, or a shipped one by its short name.

    Raises:
        UsageError: as `error`, with the nearest short names.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not os.path.lexists(path):
            message = f"there is no {kind} file '{name}'. Check the path."
            raise error(message)
        return path
    path = folder / f"{name}.yaml"
    if os.path.isfile(path):  # noqa: PTH113 -- answers for a name that is too long as well
        return path
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    close = nearest(name, known, count=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    message = f"unknown {kind} '{name}'. {hint}Known: {', '.join(known)}, or the path of a file."
    raise error(message)
