"""What a folder demands of an engine, whoever made it: modelopt, llmcompressor or harness."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from harness.artifacts import MIXED, KvFormat
from harness.engines.algorithms import ALGORITHMS, MODELOPT, parts_of
from harness.engines.declaration import (
    ALGORITHM,
    KV,
    SIDECAR,
    Declaration,
    contradictions,
    read_declarations,
    refuse_unread,
)
from harness.engines.versions import any_engine
from harness.errors import EngineError, ModelError, ReasonCode
from harness.reading import bounds, read_json_object, refused_as

if TYPE_CHECKING:
    from harness.models import Source

_MANIFEST = "harness.json"
"""Written by our own exporter beside the checkpoint's files."""
_PACKED = frozenset({"U8", "I8", "F8_E4M3"})
_ATTENTION = re.compile(r"(^|[._])attn[._]|(^|\.)attention\.")
_KV_SCALES = (".k_scale", ".v_scale", ".kv_scale")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demands:
    """What serving a checkpoint asks of an engine."""

    linears: frozenset[str] = frozenset()
    """Algorithms of linear layers; none for an unquantized model."""
    experts: frozenset[str] = frozenset()
    """Of routed experts."""
    attention: frozenset[str] = frozenset()
    """Of the layers in attention, among `linears`; some engines build these otherwise."""
    kv_fp8: bool = False
    kv_nvfp4: bool = False
    kv_calibrated: bool = False
    """Whether scales of keys and values are in the files, or should be."""
    layout: str = MODELOPT
    """Whose spelling the files have."""
    names_layers: bool = False
    """Whether the declaration gives each layer an algorithm of its own."""
    architectures: tuple[str, ...] = ()
    """Of the model, as its configuration names them; an engine must know one."""

    @property
    def algorithms(self) -> frozenset[str]:
        """Return every algorithm."""
        return self.linears | self.experts

    @property
    def scheme(self) -> str:
        """Return the one name of it all; empty for an unquantized model."""
        is_mixed = self.names_layers or len(self.algorithms) > 1
        return MIXED if is_mixed else next(iter(self.algorithms), "")

    @property
    def declared(self) -> tuple[str, ...]:
        """Return what is to be computed, as a Deployment lists it."""
        return parts_of(self.algorithms, kv=self.kv)

    @property
    def kv(self) -> str | None:
        """Return the format of keys and values; None where they stay as they are."""
        if self.kv_nvfp4:
            return "nvfp4"
        return "fp8" if self.kv_fp8 else None


def read_demands(source: "Source") -> Demands:
    """Return what serving `source` asks of an engine: from its configuration and tensor names.

    Raises:
        UsageError: it declares what harness does not read, with the reason `unsupported-format`.
        ModelError: its configuration files are malformed.
    """
    declared = next(iter(declarations_of(source)), None)
    if declared is None:
        return Demands(architectures=architectures_of(source.config))
    refuse_unread(declared, source.path)
    if declared.malformed:
        message = (
            f"'{source.path}': {declared.malformed[0]}, in {declared.source}. Export it again."
        )
        raise ModelError(message, reason=ReasonCode.INTEGRITY_FAILED)
    asked = any_engine().rules(declared, source.config).algorithms(_packed_modules(source))
    # No server of ours loads the layers for speculative decoding.
    served = [(name, a) for name, a in asked.items() if a and not name.startswith("mtp.")]
    experts = frozenset(a for name, a in served if _is_routed(name))
    linears = frozenset(a for name, a in served if not _is_routed(name))
    return Demands(
        linears=linears if served else _named(declared),
        experts=experts,
        attention=frozenset(a for name, a in served if is_attention(name)),
        kv_fp8=declared.kv_algorithm == "FP8",
        kv_nvfp4=declared.kv_algorithm == "NVFP4",
        kv_calibrated=has_kv_scales(source, declared)
        or any(name.endswith(_KV_SCALES) for name in source.tensors),
        layout=declared.layout,
        names_layers=declared.names_layers,
        architectures=architectures_of(source.config),
    )


def architectures_of(config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of classes that a model's configuration says it is built with."""
    named = config.get("architectures")
    return tuple(map(str, named)) if isinstance(named, list) else ()


def read_declared(source: "Source") -> Declaration | None:
    """Return the declaration that an engine goes by; None for an unquantized model.

    Raises:
        UsageError: as `read_demands`.
        EngineError: its files are malformed, or name two algorithms.
    """
    declarations = declarations_of(source)
    if not declarations:
        return None
    refuse_unread(declarations[0], source.path)
    differing = (contradictions(declarations, about=what) for what in (ALGORITHM, KV))
    if faults := [*declarations[0].malformed, *chain(*differing)]:
        message = f"'{source.path}': {faults[0]}. Export the checkpoint again."
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    return declarations[0]


def declarations_of(source: "Source") -> tuple[Declaration, ...]:
    """Return what the files of a model declare, the decisive declaration first."""
    return read_declarations(source.config, _beside(source, SIDECAR))


def has_kv_scales(source: "Source", declared: Declaration) -> bool:
    """Return whether the files have to hold scales of keys and values.

    modelopt's files do not tell a cast from calibrated scales; our own manifest does.
    """
    exported = _beside(source, _MANIFEST).get("kv_cache")
    return declared.kv_is_static or exported in [one for one in KvFormat if one.has_scales]


def _named(declared: Declaration) -> frozenset[str]:
    """Return every algorithm that a declaration names."""
    named = {declared.algorithm, *(group.algorithm for group in declared.groups)}
    named |= {layer.algorithm for layer in declared.layers.values()}
    return frozenset(ALGORITHMS) & named


def _packed_modules(source: "Source") -> list[str]:
    """Return the modules whose weights are stored in a quantized form."""
    return [
        name.rpartition(".")[0] if name.rpartition(".")[2].startswith("weight") else name
        for name, header in source.tensors.items()
        if header.dtype in _PACKED and "scale" not in name.rpartition(".")[2]
    ]


def is_attention(module: str) -> bool:
    """Return whether a module is a projection of attention, linear attention among it."""
    return _ATTENTION.search(module) is not None


def _is_routed(module: str) -> bool:
    return ".experts." in module


def _beside(source: "Source", name: str) -> Mapping[str, object]:
    """Return the JSON object of a file beside the weights; nothing where there is none."""
    if not (source.path / name).is_file():
        return {}
    with refused_as(EngineError, "Export it again.", reason=ReasonCode.INTEGRITY_FAILED):
        return read_json_object(source.path / name, most=bounds.INDEX_BYTES)
