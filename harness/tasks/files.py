"""Files of folders that others wrote, whatever they are called."""

import os
from collections.abc import Iterator
from pathlib import Path


def is_there(path: Path) -> bool:
    """Return whether something lies at a path, which may be too long or hold a NUL."""
    return os.path.exists(path)  # noqa: PTH110 -- pathlib's raises for such a path


def files_below(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files of a folder and its folders, but for hidden ones, that end so."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if not n.startswith((".", "__pycache__")))
        yield from (Path(where, name) for name in sorted(names) if name.endswith(suffixes))
