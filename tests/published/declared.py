"""What a configuration declares: the algorithm of each layer, read plainly and apart from harness.

The rules are those of the tools that wrote the published checkpoints: an excluded layer was left as
it was, and all others were quantized. Engines have rules of their own, which is what is tested.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from tests.published import tensors
from tests.published.tensors import Layout

Config = Mapping[str, Any]


Rule = Callable[[str, bool], Layout | None]
"""A layer's layout by its name, and whether it is the output head; None if it is unquantized."""


class Declared(NamedTuple):
    """What is said of the quantization."""

    section: Config
    """What decides: of `config.json` or, where that says nothing, of `hf_quant_config.json`."""
    what: str
    """In one line, for a reader."""
    kv: str | None
    """`FP8` where keys and values have scales in the files."""
    names: tuple[str, ...]
    """Every name of a module, or pattern, in all that is declared."""


LISTS = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "exclude")


def read(config: Config, sidecar: Config) -> Declared | None:
    """Return what is declared; None where nothing is."""
    beside = sidecar.get("quantization") or {}
    text = config.get("text_config") or {}
    spoken = [
        config.get("quantization_config") or config.get("compression_config") or {},
        beside,
        text.get("quantization_config") or {},
    ]
    section = next((one for one in spoken if one), None)
    if section is None:
        return None
    section = section.get("quantization") or section
    return Declared(section, _what(section, config), _kv(section, beside), tuple(_names(spoken)))


def _kv(section: Config, beside: Config) -> str | None:
    scheme = section.get("kv_cache_scheme")
    if isinstance(scheme, Mapping) and scheme.get("type") == "float" and not scheme.get("dynamic"):
        return {8: "FP8", 4: "NVFP4"}.get(scheme.get("num_bits", 0))
    for named in (scheme, section.get("kv_cache_quant_algo"), beside.get("kv_cache_quant_algo")):
        if isinstance(named, str):
            return named.upper()
    return None


def _names(sections: list[Config]) -> Iterator[str]:
    for section in sections:
        for key in LISTS:
            yield from section.get(key) or ()
        yield from section.get("quantized_layers") or ()
        for group in (section.get("config_groups") or {}).values():
            yield from (name for name in group.get("targets") or () if "." in name)


def _what(section: Config, config: Config) -> str:
    method = str(section.get("quant_method") or "modelopt")
    if algo := section.get("quant_algo"):
        return f"{'' if method == 'modelopt' else f'{method} and '}{algo}{_layers(section)}"
    if method == "fp8":
        size = section.get("weight_block_size")
        experts = ", experts MXFP4" if _has_fp4_experts(config) else ""
        return f"FP8 {f'in blocks of {size[0]} x {size[1]}' if size else 'by tensor'}{experts}"
    return f"{method} {section.get('format') or ''}".strip()


def _layers(section: Config) -> str:
    algos = {
        str(layer.get("quant_algo")) for layer in (section.get("quantized_layers") or {}).values()
    }
    return f" ({', '.join(sorted(algos))})" if algos else ""


def _has_fp4_experts(config: Config) -> bool:
    """Of DeepSeek V4, whose FP8 checkpoints have experts in 4 bits unless they say otherwise."""
    return config.get("model_type") == "deepseek_v4" and config.get("expert_dtype", "fp4") == "fp4"


def layout_of(declared: Declared, config: Config) -> Rule:
    """Return the rule that a declaration makes; of an unknown one, nothing is quantized."""
    section = declared.section
    method = str(section.get("quant_method") or "modelopt").lower()
    if method == "compressed-tensors":
        return partial(_in_groups, section)
    if method == "fp8":
        return partial(_native, section, config)
    if method == "mxfp4":
        return partial(_of_gpt_oss, section)
    if method.startswith("modelopt"):
        return partial(_of_modelopt, section)
    return lambda _name, _head: None


_FUSED = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj")
_FUSED |= dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj")


def is_excluded(name: str, entries: list[str]) -> bool:
    """Return whether a list in the spelling of modelopt or of transformers is about a module."""
    parent, _, last = name.rpartition(".")
    fused = f"{parent}.{_FUSED[last]}" if last in _FUSED else name
    for entry in entries:
        if entry in {name, fused} or name.startswith(f"{entry}.") or fnmatchcase(name, entry):
            return True
        if "." not in entry and name.endswith(f".{entry}"):
            return True
    return False


def _of_modelopt(section: Config, name: str, _head: bool) -> Layout | None:  # noqa: FBT001 -- a rule's two questions
    layers = section.get("quantized_layers") or {}
    if layers:
        return _named(_nearest(layers, name))
    entries = section.get("ignore") or section.get("exclude_modules") or []
    return None if is_excluded(name, entries) else _named(section.get("quant_algo"))


def _nearest(layers: Mapping[str, Config], name: str) -> str | None:
    while name:
        if name in layers:
            return str(layers[name].get("quant_algo"))
        name = name.rpartition(".")[0]
    return None


def _named(algo: str | None) -> Layout | None:
    return _MODELOPT.get(str(algo).upper()) if algo else None


_MODELOPT: Mapping[str, Layout] = {
    "NVFP4": partial(tensors.nvfp4, inputs=True),
    "NVFP4_AWQ": partial(tensors.nvfp4, inputs=True),
    "W4A16_NVFP4": partial(tensors.nvfp4, inputs=False),
    "FP8": tensors.fp8,
    "FP8_PER_CHANNEL_PER_TOKEN": lambda linear: tensors.fp8_rows(linear, (linear.out,)),
    "FP8_PB_WO": tensors.fp8_tiles_of_modelopt,
    "FP8_BLOCK_SCALES": partial(tensors.fp8_tiles, leaf="weight_scale_inv"),
    "MXFP8": tensors.mxfp8,
    "MXFP4": partial(tensors.mxfp4, weight="weight"),
    "W4A8_NVFP4_FP8": tensors.w4a8,
    "W4A16_AWQ": tensors.awq,
    "INT4_AWQ": tensors.awq,
}


def _native(section: Config, config: Config, name: str, head: bool) -> Layout | None:  # noqa: FBT001 -- a rule's two questions
    layers = section.get("quantized_layers") or {}
    if named := _named(_nearest(layers, name)):
        return named
    entries = section.get("modules_to_not_convert") or section.get("ignored_layers") or []
    if head or is_excluded(name, entries):
        return None
    if ".ffn.experts." in name and _has_fp4_experts(config):
        return tensors.mxfp4_of_deepseek
    size = section.get("weight_block_size")
    if not size:
        return partial(tensors.fp8, inputs=section.get("activation_scheme") == "static")
    if section.get("scale_fmt") == "ue8m0" and str(config.get("model_type")) in _NEW_DEEPSEEK:
        return partial(tensors.fp8_tiles, leaf="scale", dtype="F8_E8M0", size=tuple(size))
    dtype = "BF16" if str(config.get("model_type", "")).startswith("qwen") else "F32"
    return partial(tensors.fp8_tiles, leaf="weight_scale_inv", dtype=dtype, size=tuple(size))


_NEW_DEEPSEEK = {"deepseek_v4", "deepseek_ref"}


def _of_gpt_oss(section: Config, name: str, _head: bool) -> Layout | None:  # noqa: FBT001 -- a rule's two questions
    is_listed = is_excluded(name, section.get("modules_to_not_convert") or [])
    return tensors.mxfp4_stacked if name.endswith(".experts") and not is_listed else None


def _in_groups(section: Config, name: str, head: bool) -> Layout | None:  # noqa: FBT001 -- a rule's two questions
    if any(_is_hit(name, entry) for entry in section.get("ignore") or ()):
        return None
    groups = list((section.get("config_groups") or {}).values())
    by_name = [g for g in groups if any(_is_hit(name, target) for target in g.get("targets") or ())]
    by_class = [g for g in groups if "Linear" in (g.get("targets") or ()) and not head]
    found = next(iter([*by_name, *by_class]), None)
    return _arithmetic(found, section) if found else None


def _is_hit(name: str, entry: str) -> bool:
    return bool(re.match(entry[3:], name)) if entry.startswith("re:") else name == entry


def _arithmetic(group: Config, section: Config) -> Layout | None:
    weights = {"num_bits": 0, **(group.get("weights") or {})}
    inputs = group.get("input_activations") or {}
    if weights.get("type") == "int":
        size = int(weights.get("group_size") or 0)
        integers = partial(tensors.integers, bits=weights["num_bits"], group=size)
        return tensors.int8 if weights["num_bits"] == 8 else integers
    if weights["num_bits"] == 4:
        is_mx = weights.get("group_size") == 32 or "mxfp4" in str(section.get("format"))
        mxfp4 = partial(tensors.mxfp4, weight="weight_packed")
        return mxfp4 if is_mx else partial(tensors.nvfp4_packed, inputs=bool(inputs))
    static = bool(inputs) and not inputs.get("dynamic")
    strategies: dict[str, Layout] = {
        "group": tensors.mxfp8,
        "block": partial(tensors.fp8_tiles, leaf="weight_scale", dtype="BF16"),
        "channel": lambda linear: tensors.fp8_rows(linear, (linear.out, 1)),
    }
    by_tensor = partial(tensors.fp8, inputs=static)
    return strategies.get(str(weights.get("strategy")), by_tensor)
