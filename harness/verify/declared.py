"""What a checkpoint says of its own quantization, in the two spellings that engines read.

`config.json` carries `quantization_config` (flat, `ignore`, `kv_cache_scheme`), and
`hf_quant_config.json` carries `quantization` (nested, `exclude_modules`, `kv_cache_quant_algo`).
Engines take the first where it is there, else the second. Both come down to one Declaration.

A module is excluded as vLLM decides it: by its exact name, by a pattern that occurs anywhere in
the name (`prefix*` counts as `prefix` and as `prefix.*`), by fnmatch, or, for experts, by a
pattern that their name occurs in. This is why a pattern can hit more than was meant.

Source: vllm-project/vllm, vllm/model_executor/layers/quantization/modelopt.py,
`ModelOptQuantConfigBase.is_layer_excluded`, `apply_vllm_mapper` and `from_config`; and
.../utils/quant_utils.py, `is_layer_skipped`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.verify.modules import engine_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What the configuration says is quantized, and how."""

    source: str
    """The file that it was read from."""
    method: str | None
    """`modelopt`, where the file says it."""
    algo: str | None
    """Upper-case `quant_algo`; None where it is null or absent."""
    kv_algo: str | None
    group_size: int | None
    layers: Mapping[str, str]
    """Algorithm by module, for `MIXED_PRECISION`."""
    ignore: tuple[str, ...]

    def algos_of(self, modules: Iterable[str]) -> dict[str, str | None]:
        """Return the algorithm that an engine will expect of each module; None for none."""
        if self.algo == "MIXED_PRECISION":
            return {module: _nearest(self.layers, module) for module in modules}
        known: dict[tuple[str, ...], str | None] = {}  # thousands of experts share one name
        algos = {}
        for module in modules:
            names = engine_names(module)
            if names not in known:
                known[names] = None if self._excludes(names) else self.algo
            algos[module] = known[names]
        return algos

    def _excludes(self, names: tuple[str, ...]) -> bool:
        return any(matches(name, pattern) for pattern in self.ignore for name in names)


def read_declarations(
    config: Mapping[str, object], sidecar: Mapping[str, object]
) -> tuple[Declaration, ...]:
    """Return the declarations of `config.json` and `hf_quant_config.json`, the decisive first."""
    found = []
    flat, nested = (
        _mapping(config.get("quantization_config")),
        _mapping(sidecar.get("quantization")),
    )
    if flat:
        inner = _mapping(flat.get("quantization"))
        found.append(
            _read(inner, "config.json", flat) if inner else _read(flat, "config.json", flat)
        )
    if nested:
        found.append(_read(nested, "hf_quant_config.json", {}))
    return tuple(found)


def matches(module: str, pattern: str) -> bool:
    """Return whether vLLM would apply `pattern` to `module`."""
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


def _read(raw: Mapping[str, object], source: str, outer: Mapping[str, object]) -> Declaration:
    algo, method = raw.get("quant_algo"), outer.get("quant_method", raw.get("quant_method"))
    patterns = raw.get("exclude_modules", raw.get("ignore"))
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
        ignore=tuple(str(p) for p in patterns) if isinstance(patterns, list) else (),
    )


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


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
