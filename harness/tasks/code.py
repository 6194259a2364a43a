"""Python that tasks name: which files it may be made of, and where lm-eval takes it from."""

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import UnreadableError
from harness.reading import bounds
from harness.tasks.files import files_below


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A Python function that a task names."""

    key: str
    """Of the task's YAML that it stands at."""
    name: str
    file: Path
    """That names it, no link."""
    line: int

    @property
    def is_lm_evals(self) -> bool:
        """Return whether a file of the installed lm-eval names it, which is included."""
        folder = _lm_eval_folder()
        return folder is not None and self.file.is_relative_to(folder)

    @property
    def module(self) -> Path | None:
        """Return the file that lm-eval takes it from, as its loader looks for it.

        None where that file is not among the code of the folder: lm-eval would follow a link or an
        absolute name out of it, or import what is installed under that name.

        Raises:
            UnreadableError: the folder has too much code.
        """
        dotted, _, _ = self.name.rpartition(".")
        named = self.file.parent / f"{dotted.replace('.', '/')}.py"
        if not dotted or not os.path.isfile(named):  # noqa: PTH113 -- pathlib's raises for a NUL
            return None
        found = named.resolve()
        return found if found in code_of(self.file.parent) else None


def code_of(folder: Path) -> tuple[Path, ...]:
    """Return all Python files of a folder and the folders in it, sorted.

    Raises:
        UnreadableError: they are too many or too large to be hashed each time a suite is read.
    """
    found: list[Path] = []
    size = 0
    for path in files_below(folder, ".py"):
        found.append(path)
        size += os.path.getsize(path) if os.path.isfile(path) else 0  # noqa: PTH113, PTH202 -- as above
        if len(found) > bounds.CODE_FILES or size > bounds.CODE_BYTES:
            why = (
                f"has more than {bounds.CODE_FILES} Python files, or {bounds.CODE_BYTES} bytes of "
                "them, and all are part of the digest of a task that names one: keep its YAML and "
                "its code in a folder of their own"
            )
            raise UnreadableError(folder, why)
    return tuple(sorted(found))


@cache
def _lm_eval_folder() -> Path | None:
    """Return where lm-eval is installed, without importing it."""
    found = importlib.util.find_spec("lm_eval")
    return Path(found.origin).resolve().parent if found and found.origin else None
