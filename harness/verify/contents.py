"""Everything that the checks look at, read once."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import TensorHeader
from harness.errors import ModelError
from harness.verify.declared import Declaration, read_declarations
from harness.verify.layouts import LAYOUTS, MODELOPT, Layout
from harness.verify.modules import Module, group_modules, weight_of
from harness.verify.scan import Facts, hash_file, scan_shard
from harness.verify.shards import Shard, read_shard

INDEX_FILE = "model.safetensors.index.json"
MANIFEST_FILE = "harness.json"

_log = logging.getLogger("harness.verify")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """A checkpoint's files, as far as they can be read."""

    directory: Path
    config: Mapping[str, object]
    declarations: tuple[Declaration, ...]
    index: Mapping[str, str] | None
    """Shard by tensor, as the index says; None where there is no index."""
    index_problem: str | None
    shards: tuple[Shard, ...]
    modules: Mapping[str, Module]
    expected: Mapping[str, str | None]
    """Algorithm that engines expect of each module; None where they expect none."""
    facts: Mapping[str, Facts]
    """By tensor; broken shards have none."""
    manifest: Mapping[str, str] | None
    """sha256 by file, as written when the checkpoint was exported."""
    exported_kv: str | None
    """KV format that the export wrote down; engines' own files do not tell a cast from scales."""
    sha256: Mapping[str, str]
    """The same, as the files are now."""

    @property
    def declared(self) -> Declaration | None:
        """What engines go by."""
        return self.declarations[0] if self.declarations else None

    @property
    def is_declared(self) -> bool:
        """Whether an engine is told an algorithm at all."""
        return self.declared is not None and self.declared.algo is not None

    @property
    def tensors(self) -> Mapping[str, TensorHeader]:
        """Every tensor of every shard whose header can be read."""
        return {name: e.header for shard in self.shards for name, e in shard.entries.items()}

    def algo_of(self, module: str) -> str | None:
        """Return the algorithm that engines expect of a module, or that its tensors look like."""
        weight = weight_of(self.modules[module])
        looks = {"U8": "W4A16_NVFP4", "F8_E4M3": "FP8"}.get(weight.dtype if weight else "")
        return self.expected[module] or looks

    def layout_of(self, module: str) -> Layout | None:
        """Return what a quantized module has to consist of; None for unknown algorithms."""
        layouts = LAYOUTS[self.declared.layout if self.declared else MODELOPT]
        return layouts.get(self.algo_of(module) or "")


def read_contents(directory: Path) -> Contents:
    """Read headers, configuration and, in one pass, the data.

    Raises:
        ModelError: the folder holds no checkpoint.
    """
    config = _read_json(directory / "config.json")
    files = sorted(directory.glob("*.safetensors"))
    index, index_problem = _read_index(directory / INDEX_FILE)
    if config is None or not (files or index):
        message = (
            f"'{directory}' is no checkpoint: it needs a config.json and *.safetensors files. "
            "Give the folder that an export wrote."
        )
        raise ModelError(message)
    shards = tuple(read_shard(path) for path in files)
    facts: dict[str, Facts] = {}
    sha256: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        _log.info("verify: file %d of %d, %s", number, len(shards), shard.name)
        if shard.problem is None:
            scanned = scan_shard(directory / shard.name, shard)
            facts |= scanned.facts
            sha256[shard.name] = scanned.sha256
    export = _read_json(directory / MANIFEST_FILE) or {}
    manifest = _hashes(export)
    for name in manifest or {}:
        path = directory / name
        if name not in sha256 and path.is_file() and path.suffix != ".safetensors":
            sha256[name] = hash_file(path)
    modules = group_modules({n: e.header for shard in shards for n, e in shard.entries.items()})
    sidecar = _read_json(directory / "hf_quant_config.json") or {}
    declarations = read_declarations(config, sidecar)
    return Contents(
        directory=directory,
        config=config,
        declarations=declarations,
        index=index,
        index_problem=index_problem,
        shards=shards,
        modules=modules,
        expected=declarations[0].algos_of(modules) if declarations else dict.fromkeys(modules),
        facts=facts,
        manifest=manifest,
        exported_kv=str(export["kv_cache"]) if "kv_cache" in export else None,
        sha256=sha256,
    )


def _read_json(path: Path) -> Mapping[str, object] | None:
    """Return a JSON object, or None where there is no such file.

    Raises:
        ModelError: the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        message = f"'{path}' holds no JSON object. Export the checkpoint again."
        raise ModelError(message)
    return value


def _read_index(path: Path) -> tuple[Mapping[str, str] | None, str | None]:
    """Return the index, or None and what is wrong with it."""
    if not path.is_file():
        return None, None
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        return {str(tensor): str(shard) for tensor, shard in weight_map.items()}, None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, f"{path.name} is no index"


def _hashes(export: Mapping[str, object]) -> Mapping[str, str] | None:
    hashes = export.get("sha256")
    return {str(k): str(v) for k, v in hashes.items()} if isinstance(hashes, dict) else None
