"""Which names and formats each vLLM version knows: data (engines.json), read from its sources.

An engine asks its quantization whether a layer is excluded under its own name: prefixes are
rewritten, and q, k and v are one `qkv_proj`. Whether a list that names the parts also covers the
whole differs between versions and between the two layouts. Tensor-parallel size is taken as 1.

Source: vLLM 0.25.0, 0.32.0 and 0.33.0: model_executor/models/*.py of the families in the data
(`packed_modules_mapping`, `hf_to_vllm_mapper`), layers/quantization/modelopt.py (`QUANT_ALGOS`),
layers/quantization/compressed_tensors/utils.py (`should_ignore_layer`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from harness.artifacts import EngineSpec
from harness.errors import UsageError
from harness.verify.layouts import COMPRESSED, MODELOPT

_WIDTH_MULTIPLE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFamily:
    """How an engine spells a family's layers."""

    fused: Mapping[str, tuple[str, ...]]
    """Layers that are one, by the name of the whole."""
    prefixes: tuple[tuple[str, str], ...]
    """Beginnings of names: (in the files, in the engine)."""
    experts: tuple[str, ...]
    """Names of an expert's projections that the loader takes."""
    never_quantized: frozenset[str]
    """Last parts of names of layers that the engine builds unquantized without asking."""


class Engine(NamedTuple):
    """One version of an engine."""

    name: str
    families: Mapping[str, EngineFamily]
    """By model_type."""
    algorithms: Mapping[str, frozenset[str]]
    """By layout."""
    is_whole_by_regex: bool
    """Whether a regular expression that fits the whole's name excludes it (compressed-tensors)."""
    width_multiple: int
    """NVFP4 layers of other input widths are padded wrongly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    """What one version has of its own."""

    renamed_experts: Mapping[str, tuple[str, ...]]
    """Further names of an expert's projections that its loader takes, by model_type."""
    is_whole_by_regex: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """The data file."""

    families: Mapping[str, EngineFamily]
    versions: Mapping[str, _Version]


_MODELOPT_ALGORITHMS = frozenset(
    {"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "W4A16_NVFP4", "MXFP8"}
)
_COMPRESSED_ALGORITHMS = frozenset(
    {
        "NVFP4",
        "W4A16_NVFP4",
        "FP8",
        "FP8_PER_TENSOR_DYNAMIC",
        "W8A16_FP8",
        "FP8_PER_CHANNEL_PER_TENSOR",
        "FP8_PER_CHANNEL_PER_TOKEN",
        "W8A16_FP8_PER_CHANNEL",
        "FP8_PER_BLOCK",
    }
)
ALGORITHMS = {MODELOPT: _MODELOPT_ALGORITHMS, COMPRESSED: _COMPRESSED_ALGORITHMS}
"""The same in the three versions."""


def engine_of(spec: EngineSpec) -> str | None:
    """Return the engine of a run as `find_engine` takes it; None where its rules are not known."""
    name = f"vllm=={(spec.version or '').partition('+')[0]}"
    return name if name in _data().versions else None


def find_engine(name: str) -> Engine:
    """Return what is known about an engine's version.

    Raises:
        UsageError: nothing is.
    """
    data = _data()
    wanted = name.strip().lower()
    version = data.versions.get(wanted)
    if version is None:
        message = (
            f"'{name}' is no engine whose names are known; known are {', '.join(data.versions)}. "
            "Leave --engine out to check what holds for all of them."
        )
        raise UsageError(message)
    more = version.renamed_experts
    families = {
        model_type: replace(family, experts=(*family.experts, *more.get(model_type, ())))
        for model_type, family in data.families.items()
    }
    return Engine(wanted, families, ALGORITHMS, version.is_whole_by_regex, _WIDTH_MULTIPLE)


def _data() -> _Data:
    text = Path(__file__).with_name("engines.json").read_text(encoding="utf-8")
    return TypeAdapter(_Data).validate_python(json.loads(text))
