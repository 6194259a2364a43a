"""The files of a model that are no weights: tokenizer, chat template, processor, settings."""

from collections.abc import Mapping
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
_INDEXES = (".safetensors.index.json", ".bin.index.json")
WRITTEN = ("config.json", "hf_quant_config.json", "harness.json")
"""Files that an export writes itself."""


def sidecars(folder: Path) -> Mapping[str, Path]:
    """Return these files by their path within `folder`; hidden and cache folders are left out."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {str(relative): path for relative, path in files.items() if _is_sidecar(relative, path)}


def _is_sidecar(relative: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
    weights = relative.name.endswith((*_WEIGHTS, *_INDEXES))
    return path.is_file() and not hidden and not weights and str(relative) not in WRITTEN
