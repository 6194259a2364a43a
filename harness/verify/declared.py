"""What a checkpoint says of its own quantization, in the three spellings that engines read.

modelopt: `config.json` carries `quantization_config` (flat, `ignore`, `kv_cache_scheme`), and
`hf_quant_config.json` carries `quantization` (nested, `exclude_modules`, `kv_cache_quant_algo`).
Engines take the first where it is there, else the second. compressed-tensors: `config.json` alone,
with groups of layers (harness.formats.compressed). All come down to one Declaration.

A module is excluded as vLLM decides it. modelopt: by its exact name, by a pattern that occurs
anywhere in the name (`prefix*` counts as `prefix` and as `prefix.*`), by fnmatch, or, for experts,
by a pattern that their name occurs in. This is why a pattern can hit more than was meant.
compressed-tensors: by its exact name or by a regular expression; for all experts of a layer
together, by the name of the first.

Source: vllm-project/vllm, vllm/model_executor/layers/quantization/modelopt.py,
`ModelOptQuantConfigBase.is_layer_excluded`, `apply_vllm_mapper` and `from_config`;
.../utils/quant_utils.py, `is_layer_skipped`; compressed_tensors/compressed_tensors_moe/
compressed_tensors_moe.py, `get_moe_method`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.formats.compressed import (
    MIXED,
    Group,
    algorithm_of,
    hits,
    is_compressed,
    is_kv_fp8,
    names_every_linear,
    quantization_section,
    read_groups,
)
from harness.verify.layouts import COMPRESSED, MODELOPT
from harness.verify.modules import engine_names, first_expert_names, is_head

_MAPPINGS = ("config_groups", "quantized_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What the configuration says is quantized, and how."""

    source: str
    """The file that it was read from."""
    method: str | None
    """`modelopt` or `compressed-tensors`, where the file says it."""
    algo: str | None
    """Upper-case algorithm; None where it is null, absent or unknown."""
    kv_algo: str | None
    group_size: int | None
    layers: Mapping[str, str]
    """Algorithm by module, for modelopt's `MIXED_PRECISION`."""
    groups: tuple[Group, ...]
    """Of compressed-tensors."""
    ignore: tuple[str, ...]
    kv_is_static: bool = False
    """Whether scales of keys and values have to be in the files."""
    malformed: tuple[str, ...] = ()
    """What is no list or no mapping where engines go through one."""

    @property
    def layout(self) -> str:
        """Return whose spelling of tensors engines will look for."""
        return COMPRESSED if self.method == COMPRESSED else MODELOPT

    def algos_of(self, modules: Iterable[str]) -> dict[str, str | None]:
        """Return the algorithm that an engine will expect of each module; None for none."""
        if self.algo == MIXED and not self.groups:
            return {module: _nearest(self.layers, module) for module in modules}
        asked = first_expert_names if self.layout == COMPRESSED else engine_names
        known: dict[tuple[str, ...], str | None] = {}  # thousands of experts share one name
        algos = {}
        for module in modules:
            names = asked(module)
            if names not in known:
                known[names] = self._algo_of(names)
            algos[module] = known[names]
        return algos

    def is_hit(self, module: str, entry: str) -> bool:
        """Return whether an entry of the ignore list is about `module`, by the engine's rule."""
        rule = hits if self.layout == COMPRESSED else matches
        return any(rule(name, entry) for name in self._names_of(module))

    def idle_entries(self, modules: Iterable[str]) -> list[str]:
        """Return the entries of the ignore list that are about none of the modules."""
        rule = hits if self.layout == COMPRESSED else matches
        names = dict.fromkeys(name for module in modules for name in self._names_of(module))
        return [entry for entry in self.ignore if not any(rule(name, entry) for name in names)]

    def _names_of(self, module: str) -> tuple[str, ...]:
        if self.layout == COMPRESSED:
            return (*first_expert_names(module), module)
        return engine_names(module)

    def _algo_of(self, names: tuple[str, ...]) -> str | None:
        if self.layout == MODELOPT:
            excluded = any(matches(name, pattern) for pattern in self.ignore for name in names)
            return None if excluded else self.algo
        if any(hits(name, entry) for entry in self.ignore for name in names):
            return None
        by_name = (g for g in self.groups if any(hits(n, t) for t in g.targets for n in names))
        by_class = (g for g in self.groups if any(map(names_every_linear, g.targets)))
        group = next(by_name, None if is_head(names[0]) else next(by_class, None))
        return group.algorithm if group else None


def read_declarations(
    config: Mapping[str, object], sidecar: Mapping[str, object]
) -> tuple[Declaration, ...]:
    """Return the declarations of `config.json` and `hf_quant_config.json`, the decisive first."""
    found = []
    flat, nested = quantization_section(config), _mapping(sidecar.get("quantization"))
    if flat:
        inner = _mapping(flat.get("quantization"))
        if is_compressed(flat):
            found.append(_read_groups(flat, "config.json"))
        else:
            found.append(_read(inner or flat, "config.json", flat))
    if nested or sidecar.get("quantization") is not None:
        found.append(_read(nested, "hf_quant_config.json", {}))
    return tuple(found)


def matches(module: str, pattern: str) -> bool:
    """Return whether vLLM would apply modelopt's `pattern` to `module`."""
    if "experts" in module and "experts" in pattern and module in pattern:
        return True
    if len(pattern) > 1 and pattern.endswith("*") and not pattern.endswith(".*"):
        stem = pattern[:-1]
        return _matches_one(module, stem) or _matches_one(module, stem + ".*")
    return _matches_one(module, pattern)


def _matches_one(module: str, pattern: str) -> bool:
    return bool(pattern) and (pattern in module or fnmatchcase(module, pattern))


def _nearest(layers: Mapping[str, str], module: str) -> str | None:
    """Return the entry of `module`, or of the nearest module around it that has one."""
    while module:
        if module in layers:
            return layers[module]
        module = module.rpartition(".")[0]
    return None


def _read_groups(raw: Mapping[str, object], source: str) -> Declaration:
    groups = read_groups(raw)
    scheme = raw.get("kv_cache_scheme")
    kv_algo = "FP8" if is_kv_fp8(raw) else None
    return Declaration(
        source=source,
        method=COMPRESSED,
        algo=algorithm_of(groups),
        kv_algo=kv_algo if kv_algo or not scheme else "UNKNOWN",
        group_size=_group_size(raw),
        layers={},
        groups=groups,
        ignore=_strings(raw.get("ignore")),
        kv_is_static=bool(scheme) and not _mapping(scheme).get("dynamic"),
        malformed=_malformed(raw),
    )


def _read(raw: Mapping[str, object], source: str, outer: Mapping[str, object]) -> Declaration:
    algo, method = raw.get("quant_algo"), outer.get("quant_method", raw.get("quant_method"))
    layers = _mapping(raw.get("quantized_layers"))
    return Declaration(
        source=source,
        method=str(method).lower() if method else None,
        algo=str(algo).upper() if algo else None,
        kv_algo=_kv_algo(raw),
        group_size=_group_size(raw),
        layers={
            name: str(_mapping(layer).get("quant_algo", "")).upper()
            for name, layer in layers.items()
        },
        groups=(),
        ignore=_strings(raw.get("exclude_modules", raw.get("ignore"))),
        malformed=_malformed(raw),
    )


def _malformed(raw: Mapping[str, object]) -> tuple[str, ...]:
    """Return what has another form than engines go by, such as one name where a list must be."""
    lists = [key for key in ("ignore", "exclude_modules") if not _is_names(raw.get(key, []))]
    mappings = [key for key in _MAPPINGS if not isinstance(raw.get(key, {}), dict | None)]
    is_scheme = isinstance(raw.get("kv_cache_scheme"), dict | str | None)
    mappings += [] if is_scheme else ["kv_cache_scheme"]
    return (
        *(f"{key} is no list of names" for key in lists),
        *(f"{key} is no mapping" for key in mappings),
    )


def _is_names(value: object) -> bool:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value is None or is_list


def _kv_algo(raw: Mapping[str, object]) -> str | None:
    named = raw.get("kv_cache_quant_algo")
    scheme = raw.get("kv_cache_scheme")
    if isinstance(scheme, Mapping) and scheme.get("type") == "float":
        named = {8: "FP8", 4: "NVFP4"}.get(_int(scheme.get("num_bits")) or 0)
    elif isinstance(scheme, str):
        named = scheme
    return str(named).upper() if named else None


def _group_size(raw: Mapping[str, object]) -> int | None:
    """Return the block size, which the flat spelling hides in its first group of weights."""
    groups = _mapping(raw.get("config_groups"))
    weights = [_mapping(_mapping(group).get("weights")) for group in groups.values()]
    sizes = [raw.get("group_size"), *(w.get("group_size") for w in weights)]
    return next((size for size in map(_int, sizes) if size is not None), None)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
