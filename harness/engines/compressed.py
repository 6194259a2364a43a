"""What the configuration of the compressed-tensors library says, in the words of algorithms.

`quantization_config` holds groups; each gives arithmetic (`weights`, `input_activations`) and the
layers that it is for (`targets`), and one list of layers is ignored. A target or an ignored entry
is a layer's name, a regular expression after `re:` that must fit from the name's beginning, or a
class such as `Linear`, which stands for every linear layer but the output head.

The library stores global scales of NVFP4 as divisors: `weight_global_scale` is one divided by
`weight_scale_2`, and `input_global_scale` one divided by `input_scale`. FP8 scales are factors.

Source: compressed-tensors 0.17.0 and 0.19.0, quantization/quant_scheme.py and utils/helpers.py,
`generate_gparam`; vLLM 0.25.0 to 0.33.0, quantization/compressed_tensors/compressed_tensors.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.reading import Refused, compiled, fits

_REGEX = "re:"
_NVFP4_BLOCK = 16
_FP8_BITS, _FP4_BITS = 8, 4
_FP8_TILE = [128, 128]
"""`block_structure` of weights with a scale a block."""

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
"""From what weights and inputs are to the name of the algorithm."""
_NVFP4_FORMAT = "nvfp4-pack-quantized"
_FP8_FORMATS = {"float-quantized", "naive-quantized"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One entry of `config_groups`."""

    name: str
    targets: tuple[str, ...]
    algorithm: str | None
    """Such as `NVFP4`; None where the arithmetic is none of the known ones."""
    format: str
    """How it is packed, such as `nvfp4-pack-quantized`."""
    kind: str = ""
    """The arithmetic in words, for a message."""

    @property
    def is_packed_as_usual(self) -> bool:
        """Return whether `format` is one that holds the algorithm."""
        if "NVFP4" in (self.algorithm or ""):
            return self.format == _NVFP4_FORMAT
        return self.format in _FP8_FORMATS


def read_groups(section: Mapping[str, object]) -> tuple[Group, ...]:
    """Return the groups, without those that are about attention, which the KV cache covers."""
    return tuple(_groups(section))


def _groups(section: Mapping[str, object]) -> Iterator[Group]:
    for name, raw in _mapping(section.get("config_groups")).items():
        group = _mapping(raw)
        targets = group.get("targets")
        targets = tuple(map(str, targets)) if isinstance(targets, list) else ()
        if len(targets) == 1 and targets[0].endswith("Attention"):
            continue
        weights, inputs = _mapping(group.get("weights")), _mapping(group.get("input_activations"))
        yield Group(
            name=str(name),
            targets=targets,
            algorithm=_ARITHMETIC.get((_kind(weights), _kind(inputs))),
            format=str(group.get("format") or section.get("format")),
            kind=_in_words(weights, inputs),
        )


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


def is_path(entry: str) -> bool:
    """Return whether an entry is a layer's name, which engines translate, and no other kind."""
    return "." in entry and not entry.startswith(_REGEX)


def _kind(part: Mapping[str, object]) -> str:
    """Return a short word for the arithmetic of weights or of inputs."""
    if not part:
        return "none"
    if part.get("type") != "float" or part.get("symmetric") is False:
        return "unknown"
    strategy, size = str(part.get("strategy")), part.get("group_size")
    if (part.get("num_bits"), strategy, size) == (_FP4_BITS, "tensor_group", _NVFP4_BLOCK):
        return "nvfp4"
    is_odd_block = strategy == "block" and part.get("block_structure") not in (None, _FP8_TILE)
    # MXFP8 has scales that are powers of two.
    if (
        part.get("num_bits") != _FP8_BITS
        or part.get("scale_dtype") == "torch.uint8"
        or is_odd_block
    ):
        return "unknown"
    return "fp8 dynamic" if part.get("dynamic") is True else f"fp8 {strategy}"


def _in_words(weights: Mapping[str, object], inputs: Mapping[str, object]) -> str:
    said = _part_in_words(weights)
    return f"weights of {said} and inputs of {_part_in_words(inputs)}" if inputs else said


def _part_in_words(part: Mapping[str, object]) -> str:
    if not part:
        return "nothing"
    kind = {"int": "integers", "float": "floats"}.get(str(part.get("type")), str(part.get("type")))
    if part.get("scale_dtype") == "torch.uint8":
        return f"MXFP{part.get('num_bits')}"
    size = part.get("group_size")
    grouped = f"in groups of {size}" if size else f"by {part.get('strategy')}"
    return f"{part.get('num_bits')}-bit {kind} {grouped}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
