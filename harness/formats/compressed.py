"""What the configuration of the compressed-tensors library says, in the words of schemes.

`quantization_config` holds groups; each gives arithmetic (`weights`, `input_activations`) and the
layers that it is for (`targets`), and one list of layers is ignored. A target or an ignored entry
is a layer's name, a regular expression after `re:` that must fit from the name's beginning, or a
class such as `Linear`, which stands for every linear layer but the output head.

The library stores global scales of NVFP4 as divisors: `weight_global_scale` is one divided by
`weight_scale_2`, and `input_global_scale` one divided by `input_scale`. FP8 scales are factors.

Source: compressed-tensors 0.17.0 and 0.19.0, quantization/quant_scheme.py and utils/helpers.py,
`generate_gparam`; vLLM 0.25.0 and 0.32.0, quantization/compressed_tensors/compressed_tensors.py
and utils.py, `find_matched_target`, `should_ignore_layer`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.errors import UnreadableError
from harness.reading import Refused, compiled, fits

_FILE = "the model's config.json"
_REGEX = "re:"
METHOD = "compressed-tensors"
MIXED = "MIXED_PRECISION"
_EVERY_LINEAR = {"linear", "routedexperts"}
"""Classes that engines' linear layers and experts answer to."""
_NVFP4_BLOCK = 16

_ARITHMETIC: Mapping[tuple[str, str], str] = {
    ("nvfp4", "none"): "W4A16_NVFP4",
    ("nvfp4", "nvfp4"): "NVFP4",
    ("fp8 tensor", "none"): "W8A16_FP8",
    ("fp8 tensor", "fp8 tensor"): "FP8",
    ("fp8 tensor", "fp8 dynamic"): "FP8_PER_TENSOR_DYNAMIC",
    ("fp8 channel", "none"): "W8A16_FP8_PER_CHANNEL",
    ("fp8 channel", "fp8 tensor"): "FP8_PER_CHANNEL_PER_TENSOR",
    ("fp8 channel", "fp8 dynamic"): "FP8_PER_CHANNEL_PER_TOKEN",
    ("fp8 block", "fp8 dynamic"): "FP8_PER_BLOCK",
}
"""From what weights and inputs are to one name; the names that modelopt has are modelopt's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One entry of `config_groups`."""

    name: str
    targets: tuple[str, ...]
    algorithm: str | None
    """Such as `NVFP4`; None where the arithmetic is none of the known ones."""
    format: str
    """How it is packed, such as `nvfp4-pack-quantized`."""


def quantization_section(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return what `config.json` says of quantization, in whichever place engines look for it.

    Raises:
        UnreadableError: there is something else in that place, which engines stop at.
    """
    text = config.get("text_config")
    for place in (config, text if isinstance(text, Mapping) else {}):
        for key in ("quantization_config", "compression_config"):
            section = place.get(key)
            if section is not None and not isinstance(section, Mapping):
                raise UnreadableError(_FILE, f"has a {key} that is no mapping: {section!r:.80}")
            if section:
                return section
    return {}


def is_compressed(section: Mapping[str, object]) -> bool:
    """Return whether a quantization section is written by compressed-tensors."""
    return str(section.get("quant_method")).lower() == METHOD


def read_groups(section: Mapping[str, object]) -> tuple[Group, ...]:
    """Return the groups, without those that are about attention, which the KV cache covers."""
    groups = _mapping(section.get("config_groups"))
    found = []
    for name, raw in groups.items():
        group = _mapping(raw)
        targets = _strings(group.get("targets"))
        if len(targets) == 1 and targets[0].endswith("Attention"):
            continue
        found.append(
            Group(
                name=str(name),
                targets=targets,
                algorithm=_algorithm(group),
                format=str(group.get("format") or section.get("format")),
            )
        )
    return tuple(found)


def algorithm_of(groups: Iterable[Group]) -> str | None:
    """Return the one algorithm of a checkpoint; `MIXED_PRECISION` where there are several."""
    algorithms = {group.algorithm for group in groups}
    return algorithms.pop() if len(algorithms) == 1 else (MIXED if algorithms else None)


def hits(name: str, entry: str) -> bool:
    """Return whether a target or an ignored entry names the layer `name` itself.

    Raises:
        UnreadableError: a regular expression would backtrack without end.
    """
    if not entry.startswith(_REGEX):
        return name == entry
    return fits(entry.removeprefix(_REGEX), name)


def is_pattern_broken(entry: str) -> bool:
    """Return whether an entry is meant as a regular expression and is none."""
    if not entry.startswith(_REGEX):
        return False
    return isinstance(compiled(entry.removeprefix(_REGEX)), Refused)


def names_every_linear(target: str) -> bool:
    """Return whether a target is the class of all linear layers."""
    return target.lower() in _EVERY_LINEAR


def is_kv_fp8(section: Mapping[str, object]) -> bool:
    """Return whether keys and values are kept in FP8."""
    scheme = _mapping(section.get("kv_cache_scheme"))
    return (scheme.get("type"), scheme.get("num_bits")) == ("float", 8)


def _algorithm(group: Mapping[str, object]) -> str | None:
    weights, inputs = _mapping(group.get("weights")), _mapping(group.get("input_activations"))
    return _ARITHMETIC.get((_kind(weights), _kind(inputs)))


def _kind(part: Mapping[str, object]) -> str:
    """Return a short word for the arithmetic of weights or of inputs."""
    if not part:
        return "none"
    strategy, dynamic = str(part.get("strategy")), part.get("dynamic")
    if part.get("type") != "float" or part.get("symmetric") is False:
        return "unknown"
    if part.get("num_bits") == 4 and strategy == "tensor_group":  # noqa: PLR2004 -- bits of FP4
        return "nvfp4" if part.get("group_size") == _NVFP4_BLOCK else "unknown"
    if part.get("num_bits") != 8 or part.get("scale_dtype") == "torch.uint8":  # noqa: PLR2004 -- bits of FP8
        return "unknown"  # MXFP8 has scales that are powers of two
    return "fp8 dynamic" if dynamic is True else f"fp8 {strategy}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
