"""The files of a checkpoint and of a bundle, by name: what was judged, and what is a stranger."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from harness.models import MANIFEST_FILE, files_of, sha256_of

OF_GIT = (".git", ".gitattributes", ".gitignore", ".cache")
"""What git and downloads from the Hub leave beside a model's files; no part of any release."""


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the sha256 of each file, by name.

    Raises:
        ModelError: one cannot be read, or changed while it was read.
    """
    return {name: sha256_of(path) for name, path in sorted(files.items())}


def beside(folder: Path) -> Mapping[str, Path]:
    """Return the files that may lie in a checkpoint and that no engine reads: the manifest."""
    manifest = folder / MANIFEST_FILE
    return {MANIFEST_FILE: manifest} if manifest.is_file() else {}


def strangers(folder: Path) -> tuple[str, ...]:
    """Return the files of a checkpoint that were not judged and do not belong there."""
    known = files_of(folder).keys() | beside(folder).keys()
    return tuple(name for name in all_files(folder, but=OF_GIT) if name not in known)


def all_files(folder: Path, *, but: Collection[str] = ()) -> Iterator[str]:
    """Yield the path of every file and link below a folder, but for what `but` names at its top."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] not in but and (path.is_symlink() or not path.is_dir()):
            yield relative.as_posix()
