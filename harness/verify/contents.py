"""Everything that the checks look at; the data is looked at in one pass (`scanned.py`)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harness.artifacts import TensorHeader
from harness.engines import (
    MODELOPT,
    SIDECAR,
    Declaration,
    Engine,
    Rules,
    any_engine,
    read_declarations,
    refuse_unread,
)
from harness.errors import ModelError, UnreadableError
from harness.models import WeightFiles, find_weights
from harness.reading import bounds, read_json_object
from harness.verify.compare import Comparison
from harness.verify.layouts import BLOCKED_EXPERTS, LAYOUTS, Layout
from harness.verify.modules import (
    BLOCK_SCALES,
    BLOCKS,
    Module,
    draft_layers,
    group_modules,
    leaf_of,
    weight_of,
)
from harness.verify.origin import SourceTensors
from harness.verify.scan import Facts
from harness.verify.shards import Shard, read_shard
from harness.verify.stored import StoredTensors

MANIFEST_FILE = "harness.json"
_LOOKS = {"U8": "W4A16_NVFP4", "F8_E4M3": "FP8"}
"""Algorithm by the type of the weight."""

_NAME_BYTES = 255
"""Of a file's name, on all file systems in use."""


class Origin(NamedTuple):
    """The model that a checkpoint was made from."""

    directory: Path
    config: Mapping[str, object]
    comparison: Comparison
    """What the pass over the data finds out."""

    @property
    def modules(self) -> set[str]:
        """The modules that the model has."""
        return {name.rpartition(".")[0] for name in self.comparison.source.headers}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A checkpoint's files, as far as they can be read."""

    directory: Path
    config: Mapping[str, object]
    declarations: tuple[Declaration, ...]
    weights: WeightFiles
    """Which files hold weights, and which are stray."""
    shards: tuple[Shard, ...]
    modules: Mapping[str, Module]
    rules: Rules | None
    """What the decisive declaration means to an engine."""
    expected: Mapping[str, str | None]
    """Algorithm that engines expect of each module; None where they expect none."""
    facts: Mapping[str, Facts]
    """By tensor; broken shards have none."""
    manifest: Mapping[str, str] | None
    """Hash by file, as written when the checkpoint was exported."""
    meant: frozenset[str]
    """Files of weights whose hash is that of the tensors that were meant (`Hashed.TENSORS`); it is
    sha256 for all others."""
    exported_kv: str | None
    """KV format that the export wrote down; engines' own files do not tell a cast from scales."""
    hashes: Mapping[str, str]
    """The same, as the files are now; weight files without an expected hash have none."""
    engine: Engine | None = None
    """The engine version whose rules apply, where one was named."""
    origin: Origin | None = None
    """The model that the checkpoint was made from, where it was named."""
    drafts: tuple[str, ...] = ()
    """Beginnings of names of draft heads, of the model's too, that are layers of the decoder."""

    @property
    def declared(self) -> Declaration | None:
        """What engines go by."""
        return self.declarations[0] if self.declarations else None

    @property
    def is_declared(self) -> bool:
        """Whether an engine is told an algorithm at all."""
        return self.declared is not None and self.declared.algorithm is not None

    @cached_property
    def tensors(self) -> Mapping[str, TensorHeader]:
        """Every tensor of every shard whose header can be read; asked for by each check."""
        return {name: e.header for shard in self.shards for name, e in shard.entries.items()}

    def tensor_of(self, module: str, leaf: str | None) -> str:
        """Return the name of a tensor of a module, be it there or not."""
        return self.modules[module].tensor_of(module, leaf or "")

    def place_of(self, tensor: str) -> tuple[str, str]:
        """Return the module of a tensor, and the last part of its name there."""
        parent, _, last = tensor.rpartition(".")
        if last in self.modules.get(parent, ()):
            return parent, last
        leaf = leaf_of(tensor)
        return (tensor, "weight") if leaf == last else (tensor.removesuffix(f"_{leaf}"), leaf)

    def algo_of(self, module: str) -> str | None:
        """Return the algorithm that engines expect of a module, or that its tensors look like."""
        if expected := self.expected[module]:
            return expected
        weight = weight_of(self.modules[module])
        return _LOOKS.get(weight.dtype) if weight else None

    def layout_of(self, module: str) -> Layout | None:
        """Return what a quantized module has to consist of; None for unknown algorithms."""
        if module not in self._layouts:  # which nearly each check asks of each
            self._layouts[module] = self._layout_of(module)
        return self._layouts[module]

    @cached_property
    def _layouts(self) -> dict[str, Layout | None]:
        return {}

    def _layout_of(self, module: str) -> Layout | None:
        if not {BLOCKS, BLOCK_SCALES}.isdisjoint(self.modules[module]):
            return BLOCKED_EXPERTS
        layouts = LAYOUTS.get(self.declared.layout if self.declared else MODELOPT, {})
        layout = layouts.get(self.algo_of(module) or "")
        return layout.spelled_in(self.modules[module]) if layout else None


class Opened(NamedTuple):
    """A checkpoint of which only headers are read."""

    contents: Contents
    stored: StoredTensors


def open_contents(directory: Path, source: Path | None, engine: Engine | None = None) -> Opened:
    """Read headers and configuration.

    Raises:
        ModelError: the folder, or that of the source, holds no checkpoint.
    """
    config = read_json(directory / "config.json")
    weights = find_weights(directory)
    if config is None or not (weights.files or weights.weight_map):
        raise no_checkpoint(directory)
    shards = tuple(read_shard(directory / name) for name in weights.files)
    stored = StoredTensors(directory, tuple(shard for shard in shards if not shard.problem))
    modules = group_modules({n: e.header for shard in shards for n, e in shard.entries.items()})
    declarations = read_declarations(config, read_json(directory / SIDECAR) or {})
    rules = None
    if declarations:
        refuse_unread(declarations[0], directory)
        rules = (engine or any_engine()).rules(declarations[0], config)
    export = read_json(directory / MANIFEST_FILE) or {}
    manifest = _hashes(directory, export, "sha256")
    meant = _hashes(directory, export, "tensors_xxh3") or {}
    if manifest is not None:
        manifest = {**manifest, **meant}
    origin = _open_origin(source, stored)
    contents = Contents(
        directory=directory,
        config=config,
        declarations=declarations,
        weights=weights,
        shards=shards,
        modules=modules,
        rules=rules,
        expected=rules.algorithms(modules) if rules else dict.fromkeys(modules),
        facts={},
        manifest=manifest,
        meant=frozenset(meant),
        exported_kv=str(export["kv_cache"]) if "kv_cache" in export else None,
        hashes={},
        engine=engine,
        origin=origin,
        drafts=draft_layers([*modules, *(origin.modules if origin else ())]),
    )
    return Opened(contents, stored)


def no_checkpoint(directory: Path) -> ModelError:
    """Return what to say of a folder that holds none."""
    message = (
        f"'{directory}' is no checkpoint: it needs a config.json and *.safetensors files. "
        "Give the folder that an export wrote."
    )
    return ModelError(message)


def _open_origin(source: Path | None, checkpoint: StoredTensors) -> Origin | None:
    """Return the source's files, of which only headers are read here.

    Raises:
        ModelError: a file of the source is broken or missing.
    """
    if source is None:
        return None
    config = read_json(source / "config.json")
    shards = tuple(read_shard(source / name) for name in find_weights(source).files)
    problems = [shard.problem for shard in shards if shard.problem]
    if config is None or not shards:
        problems.append("it needs a config.json and *.safetensors files")
    if problems or config is None:
        message = f"'{source}' is no model to compare with: {problems[0]}. Download it again."
        raise ModelError(message)
    tensors = SourceTensors(source, shards, config)
    tensors.ask_structure(checkpoint.headers)
    return Origin(source, config, Comparison(checkpoint, tensors))


def read_json(path: Path) -> Mapping[str, object] | None:
    """Return a JSON object, or None where there is no such file.

    Raises:
        ModelError: the file holds something else.
    """
    if not os.path.lexists(path):
        return None
    try:
        # Mamba's configurations have an infinite limit, which loaders take.
        return read_json_object(path, most=bounds.INDEX_BYTES, infinity=True)
    except UnreadableError as error:
        message = f"'{path}' holds no JSON object that can be read: it {error.why}."
        raise ModelError(message + " Export the checkpoint again.") from error


def _hashes(directory: Path, export: Mapping[str, object], key: str) -> Mapping[str, str] | None:
    """Return the hashes that a manifest has under `key`; None where it has none.

    Raises:
        ModelError: they are no hashes of files of this folder.
    """
    hashes = export.get(key)
    if hashes is None:
        return None
    if not isinstance(hashes, dict) or not all(map(_is_within, hashes)):
        message = (
            f"'{directory / MANIFEST_FILE}' has a '{key}' that does not give hashes of files of "
            "this folder. Export the checkpoint again."
        )
        raise ModelError(message)
    return {name: str(value) for name, value in hashes.items()}


def _is_within(name: str) -> bool:
    """Return whether a name is that of a file in the folder or below."""
    path = PurePosixPath(name)
    is_plain = not path.is_absolute() and ".." not in path.parts and "\0" not in name
    return is_plain and all(0 < len(part.encode()) <= _NAME_BYTES for part in path.parts)
