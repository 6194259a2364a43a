"""A disk of a few kilobytes that really is full: a tmpfs that this process alone sees."""

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNS = 0x20000
_libc = ctypes.CDLL(None, use_errno=True)
PAGE = 4096


def can_mount() -> bool:
    """Leave the mounts that all processes share; return whether this one may mount now."""
    if _libc.unshare(_CLONE_NEWNS):
        return False
    return not subprocess.run(["/bin/mount", "--make-rprivate", "/"], check=False).returncode


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[None]:
    """Let a folder be a disk of so many bytes."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", str(folder)], check=True)


def grow(folder: Path, num_bytes: int) -> None:
    """Give a small disk so many bytes."""
    _mount("-o", f"remount,size={num_bytes}", folder)


def used_by(folder: Path) -> int:
    """Return how many bytes a folder's files need on such a disk."""
    sizes = (file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def _mount(*words: str | Path) -> None:
    subprocess.run(["/bin/mount", *map(str, words)], check=True)
