"""The formats by name. A new one is a new file with a `FORMAT` in it, and its name here.

A format's file is imported when it is asked for, so that reading a recipe needs no torch.
"""

from functools import cache
from importlib import import_module

from harness.errors import RecipeError
from harness.formats.format import Format

_NAMES = ("fp8", "nvfp4", "fp8_block", "fp8_channel", "fp8_token", "mxfp8", "mxfp4")
_OF_EXPERTS = ("fp8_block_experts",)
"""What others are stored as of routed experts; no rule names them."""


def known_formats() -> tuple[str, ...]:
    """Return the names that a recipe's rule may give, of weights and of inputs."""
    return _NAMES


@cache  # asked for several times a layer of a plan
def get_format(name: str) -> Format:
    """Return the format called `name`.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in (*_NAMES, *_OF_EXPERTS):
        message = f"unknown format '{name}'. Known: {', '.join(_NAMES)}."
        raise RecipeError(message)
    found: Format = import_module(f"harness.formats.{name}").FORMAT
    return found


def has_input_scale(name: str | None) -> bool:
    """Return whether a layer whose inputs have this format has a calibrated scale for them.

    Args:
        name: of the format; None where inputs are not rounded.
    """
    return name is not None and get_format(name).has_input_scale


def stored_format(name: str, *, is_routed: bool) -> Format:
    """Return the format that stores the weight of a layer to which a rule gives the format `name`.

    Raises:
        RecipeError: there is none of that name.
    """
    found = get_format(name)
    return get_format(found.for_experts) if is_routed and found.for_experts else found
