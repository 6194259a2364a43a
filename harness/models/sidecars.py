"""The files of a model: all that count, and those that are no weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.models.weight_files import read_by_none

_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
"""Never read here: they may hold code, or the same weights for other programs."""
_WEIGHTS = (".safetensors", *_OTHER_WEIGHTS)
_INDEXES = (".safetensors.index.json", ".bin.index.json")
MANIFEST_FILE = "harness.json"
WRITTEN = ("config.json", "hf_quant_config.json", MANIFEST_FILE)
"""Files that an export writes itself."""


def files_of(folder: Path) -> Mapping[str, Path]:
    """Return every file that counts by its path within `folder`: weights and what lies beside them.

    Left out are the manifest of whoever exported it, which holds the digest of all others, and what
    no engine of ours reads: hidden and cache folders, weights that are no safetensors, and those
    that the index, which counts itself, keeps engines from.
    """
    left_out = {MANIFEST_FILE, *read_by_none(folder)}
    return {
        name: path
        for name, path in _visible(folder)
        if name not in left_out and not name.endswith(_OTHER_WEIGHTS)
    }


def sidecars(folder: Path) -> Mapping[str, Path]:
    """Return the files that are no weights and that an export copies: tokenizer, template, ..."""
    return {
        name: path
        for name, path in _visible(folder)
        if name not in WRITTEN and not name.endswith((*_WEIGHTS, *_INDEXES))
    }


def _visible(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden:
            yield str(relative), path
