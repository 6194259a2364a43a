"""Files of folders that others wrote, whatever they are called."""

import os
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UnreadableError
from harness.reading import bounds


def is_there(path: Path) -> bool:
    """Return whether something lies at a path, which may be too long or hold a NUL."""
    return os.path.exists(path)  # noqa: PTH110 -- pathlib's raises for such a path


def files_below(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files of a folder and its folders, but for hidden ones, that end so.

    Raises:
        UnreadableError: it holds more files and folders than a folder of tasks does.
    """
    seen = 0
    for where, folders, names in os.walk(folder):
        seen += len(folders) + len(names)
        if seen > bounds.FOLDER_FILES:
            why = (
                f"holds more than {bounds.FOLDER_FILES} files: keep tasks in a folder of their own"
            )
            raise UnreadableError(folder, why)
        folders[:] = sorted(n for n in folders if not n.startswith((".", "__pycache__")))
        yield from (Path(where, name) for name in sorted(names) if name.endswith(suffixes))
