"""Schemes: the one name that engines have for a layer's formats, and how it is declared.

Engines read schemes from `config.json` and from `hf_quant_config.json`; both say the same in
different words. A checkpoint whose layers have several schemes is MIXED_PRECISION and names the
scheme of each layer. Needs no torch, so that a recipe can be checked without it.
Source: nvidia-modelopt 0.47.0, torch/export/convert_hf_config.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """What quantized layers look like."""

    name: str
    """`quant_algo` in both files."""
    weight_format: str
    input_format: str | None
    num_bits: int
    group_size: int | None
    """Weights of a row that share a scale, where declarations say so."""
    loads_experts: bool = True
    """Whether any engine loads routed experts of it."""
    loads_experts_alone: bool = True
    """Whether engines do so where it is the one scheme of all layers; else as MIXED alone."""
    grouped: bool = True
    """Whether config.json has `config_groups` for it."""

    @property
    def bits_per_weight(self) -> float:
        """Return stored bits of a large weight: its codes and the scales of its blocks."""
        scale_bits = 0 if self.group_size is None else 8 / self.group_size
        return self.num_bits + scale_bits

    def config_group(
        self, targets: Iterable[str] = ("Linear",), *, with_inputs: bool | None = None
    ) -> dict[str, object]:
        """Return an entry of `config_groups` in config.json.

        Args:
            targets: the layers, or their class.
            with_inputs: whether inputs are declared; None for what the scheme does.
        """
        numbers: dict[str, object] = {"dynamic": False, "num_bits": self.num_bits, "type": "float"}
        if self.group_size is not None:
            numbers["group_size"] = self.group_size
        parts: dict[str, object] = {"weights": dict(numbers), "targets": list(targets)}
        if with_inputs or (with_inputs is None and self.input_format is not None):
            parts = {"input_activations": dict(numbers), **parts}
        return parts

    def layer_entry(self) -> dict[str, object]:
        """Return an entry of `quantized_layers` in both files."""
        size = {} if self.group_size is None else {"group_size": self.group_size}
        return {"quant_algo": self.name, **size}


_SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="NVFP4", weight_format="nvfp4", input_format="nvfp4", num_bits=4, group_size=16
        ),
        Scheme(
            name="W4A16_NVFP4", weight_format="nvfp4", input_format=None, num_bits=4, group_size=16
        ),
        Scheme(name="FP8", weight_format="fp8", input_format="fp8", num_bits=8, group_size=None),
        Scheme(
            name="FP8_PB_WO",
            weight_format="fp8_block",
            input_format=None,
            num_bits=8,
            group_size=None,
            loads_experts_alone=False,
            grouped=False,
        ),
        Scheme(
            name="FP8_PER_CHANNEL_PER_TOKEN",
            weight_format="fp8_channel",
            input_format="fp8_token",
            num_bits=8,
            group_size=None,
            loads_experts=False,
            grouped=False,
        ),
        Scheme(
            name="MXFP8",
            weight_format="mxfp8",
            input_format="mxfp8",
            num_bits=8,
            group_size=32,
            grouped=False,
        ),
        Scheme(
            name="MXFP4",
            weight_format="mxfp4",
            input_format=None,
            num_bits=4,
            group_size=32,
            grouped=False,
        ),
    )
}


_SAME_FILES: Mapping[tuple[str, str | None], str] = {("mxfp4", "mxfp4"): "MXFP4"}
"""Formats whose checkpoints are those of another pair: no file says that inputs are rounded."""


def scheme_of(weight_format: str, input_format: str | None) -> str:
    """Return the scheme of layers with these formats.

    Raises:
        RecipeError: no engine has a scheme for the pair.
    """
    if same := _SAME_FILES.get((weight_format, input_format)):
        return same
    for scheme in _SCHEMES.values():
        if (scheme.weight_format, scheme.input_format) == (weight_format, input_format):
            return scheme.name
    pairs = ", ".join(f"{s.weight_format} with {s.input_format or 'no'}" for s in _SCHEMES.values())
    message = (
        f"no engine loads '{weight_format}' weights with '{input_format or 'no'}' input format. "
        f"Let the rules give one of: {pairs}."
    )
    raise RecipeError(message)


def get_scheme(name: str) -> Scheme:
    """Return a scheme by the name that checkpoints declare.

    Raises:
        RecipeError: the name is unknown.
    """
    if name not in _SCHEMES:
        message = f"unknown scheme '{name}'. Known: {', '.join(_SCHEMES)}."
        raise RecipeError(message)
    return _SCHEMES[name]


def known_schemes() -> tuple[Scheme, ...]:
    """Return every scheme of a layer."""
    return tuple(_SCHEMES.values())
