"""Schemes: the one name that a whole checkpoint has for its formats, and how it is declared.

Engines read the scheme from `config.json` and from `hf_quant_config.json`; both say the same in
different words. Needs no torch, so that a recipe can be checked without it.
Source: nvidia-modelopt 0.47.0, torch/export/convert_hf_config.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """What a checkpoint's quantized layers look like."""

    name: str
    """`quant_algo` in both files."""
    weight_format: str
    input_format: str | None
    num_bits: int
    group_size: int | None

    def config_group(self) -> dict[str, object]:
        """Return the entry of `config_groups` in config.json."""
        numbers: dict[str, object] = {"dynamic": False, "num_bits": self.num_bits, "type": "float"}
        if self.group_size is not None:
            numbers["group_size"] = self.group_size
        parts: dict[str, object] = {"weights": dict(numbers), "targets": ["Linear"]}
        if self.input_format is not None:
            parts = {"input_activations": dict(numbers), **parts}
        return parts


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
    )
}


def scheme_of(weight_format: str, input_format: str | None) -> str:
    """Return the scheme of layers with these formats.

    Raises:
        RecipeError: no engine has a scheme for the pair.
    """
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
