"""Which files of a folder are its weights: those that the index names, as loaders have it.

Without an index it is model.safetensors; a folder with neither has no order, and all of its files
count. Others that lie there (the same weights in another layout, an adapter) are stray: no part of
the model. Two of vLLM's habits make an exception of some: its default load format takes
`consolidated*.safetensors` before the index, and without an index it reads every file.

Source: vLLM 0.32.0, model_executor/model_loader/default_loader.py, `_prepare_weights`;
transformers 5, `_get_resolved_checkpoint_files`.
"""

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from harness.errors import UnreadableError
from harness.reading import bounds, read_bytes, read_json_object_text, readable

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SUFFIX = ".safetensors"
_BEFORE_INDEX = "consolidated"
SETTLED_NS = 2_000_000_000
"""Longest step of the times of a file system in use (FAT)."""


class WeightFiles(NamedTuple):
    """The weight files of a folder, by name."""

    weight_map: Mapping[str, str] | None
    """File by tensor; None where there is no index, or none that can be read."""
    problem: UnreadableError | None
    """Why the index cannot be read."""
    files: tuple[str, ...]
    """Those that are there and that loaders read."""
    stray: tuple[str, ...]
    """All others."""

    @property
    def is_overridden(self) -> bool:
        """Whether vLLM, left to its default load format, would read others than these."""
        return any(name.startswith(_BEFORE_INDEX) for name in self.stray)

    @property
    def stray_lines(self) -> tuple[str, ...]:
        """What engines make of each stray file."""
        return tuple(f"{name} {self._fate(name)}" for name in self.stray)

    def _fate(self, name: str) -> str:
        why = f"is not in {INDEX}" if self.weight_map else f"lies beside {SINGLE}"
        if name.startswith(_BEFORE_INDEX):
            return f"{why}, but vLLM's default load format reads it in place of those that are"
        if self.weight_map is None:
            return f"{why}: transformers leaves it alone, vLLM reads both"
        return f"{why}, so that no engine reads it"


def find_weights(folder: Path) -> WeightFiles:
    """Return which files of a folder are its weights; none of them is opened."""
    there = {path.name for path in folder.glob(f"*{_SUFFIX}") if not path.name.startswith(".")}
    try:
        index = read_index(folder)
    except UnreadableError as error:
        return WeightFiles(None, error, tuple(sorted(there)), ())
    listed = set(index.values()) if index is not None else {SINGLE} & there or there
    return WeightFiles(index, None, tuple(sorted(listed & there)), tuple(sorted(there - listed)))


def read_by_none(folder: Path) -> frozenset[str]:
    """Return the stray files that no engine reads as long as the index stays as it is."""
    weights = find_weights(folder)
    stray = weights.stray if weights.weight_map is not None else ()
    return frozenset(name for name in stray if not name.startswith(_BEFORE_INDEX))


def read_index(folder: Path) -> Mapping[str, str] | None:
    """Return the index's file by tensor; None where there is no index.

    It is remembered, for a folder is looked through many times in a run, unless it is so new that
    another change might leave the same times.

    Raises:
        UnreadableError: it names no files of this folder.
    """
    path = folder / INDEX
    if not os.path.lexists(path):
        return None
    with readable(path):
        stat = path.stat()
    is_new = stat.st_ctime_ns > time.time_ns() - SETTLED_NS
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return _read(path, ()) if is_new else _remembered(path, state)


def _read(path: Path, _state: tuple[int, ...]) -> Mapping[str, str]:
    return _parsed(path, read_bytes(path, most=bounds.INDEX_BYTES))


@lru_cache(maxsize=2)
def _parsed(path: Path, text: bytes) -> Mapping[str, str]:
    """Return what the text of an index says: one that is new is read again, and says the same."""
    weight_map = read_json_object_text(text, f"'{path}'").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UnreadableError(path, "has no 'weight_map'")
    files = weight_map.values()
    is_text = all(isinstance(file, str) for file in files)
    different = dict.fromkeys(files) if is_text else files
    if strange := [file for file in different if not _is_beside(file)]:
        raise UnreadableError(path, f"names {strange[0]!r:.80}, which is no file beside it")
    return weight_map


_remembered = lru_cache(maxsize=4)(_read)


def _is_beside(file: object) -> bool:
    """Return whether this is the plain name of a weight file."""
    return isinstance(file, str) and Path(file).name == file and file.endswith(_SUFFIX)
