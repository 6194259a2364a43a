"""The folder of a checkpoint: complete under its name, or not there.

Everything is written to `<into>.partial`, which is renamed to `into` at the end. What stood at
`into` before is replaced at that moment and not sooner.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import doors
from harness.errors import RunDirectoryError
from harness.models import MANIFEST_FILE, Source


def check_target(source: Source, into: Path) -> None:
    """Refuse to replace what harness did not write, and to write among what it reads.

    Raises:
        RunDirectoryError: `into` holds something that is no checkpoint of harness, or lies within
            the model's folder.
    """
    if into.resolve().is_relative_to(source.path.resolve()):
        message = f"'{into}' lies within the model '{source.path}'. Choose a folder outside of it."
        raise RunDirectoryError(message)
    doors.check_folder(into)
    for folder in (into, _old_of(into)):
        if (folder / MANIFEST_FILE).is_file() or not (folder.is_symlink() or folder.exists()):
            continue
        if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
            message = (
                f"'{folder}' exists and is no checkpoint of harness. Choose another folder, or "
                "remove it."
            )
            raise RunDirectoryError(message)


def partial_of(into: Path) -> Path:
    """Return the folder that becomes `into`."""
    return into.with_name(f"{into.name}.partial")


@contextmanager
def partial_folder(into: Path) -> Iterator[Path]:
    """Give a fresh folder beside `into`; whatever is left of it at the end is removed."""
    partial = partial_of(into)
    doors.make_anew(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def flush(folder: Path) -> None:
    """Force all files and folders to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(into: Path, partial: Path) -> None:
    """Put the complete folder where it belongs; an older one is removed afterwards."""
    old = _old_of(into)
    doors.remove(old)
    if into.exists():
        into.rename(old)
    partial.rename(into)
    doors.remove(old)


def _old_of(into: Path) -> Path:
    """Return the folder to which `into` is moved while another takes its place."""
    return into.with_name(f"{into.name}.old")
