"""Run the short convolutions of linear attention in one pass, where a package for it is there.

transformers takes the kernels of flash-linear-attention for the attention itself. For the
convolution before it, it knows a package alone that is compiled for each GPU (causal-conv1d), and
else turns a tensor as wide as all heads around, convolves, activates and turns it back, one pass
over memory each. flash-linear-attention has a kernel for that too, which needs no turning.

Shapes: B samples, T tokens, C channels, K taps.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_NAME = "causal_conv1d_fn"
"""What models' own files call."""
_COMPILED = "causal_conv1d"
_FUSED = "fla.modules.causal_conv1d"
_ACTIVATIONS = (None, "silu", "swish")
_Convolve = Callable[..., Any]


@contextmanager
def fused_convolutions(model: nn.Module) -> Iterator[None]:
    """Run a model's short convolutions on a GPU by flash-linear-attention's kernel.

    Where that is not installed, or causal-conv1d is, all stays as transformers has it.
    """
    fused = _fused()
    if fused is None:
        yield
        return
    names = {type(module).__module__ for module in model.modules()}
    files = [sys.modules[name] for name in sorted(names) if hasattr(sys.modules[name], _NAME)]
    before: list[_Convolve] = [getattr(file, _NAME) for file in files]
    try:
        for file, theirs in zip(files, before, strict=True):
            setattr(file, _NAME, _either(fused, theirs))
        yield
    finally:
        for file, theirs in zip(files, before, strict=True):
            setattr(file, _NAME, theirs)


def tunes_itself(device: str) -> bool:
    """Tell whether kernels may be in use whose variants are tried, and chosen by their speed."""
    return device.startswith("cuda") and importlib.util.find_spec("fla") is not None


def _fused() -> _Convolve | None:
    """Return flash-linear-attention's function, if it is what is missing."""
    if importlib.util.find_spec(_COMPILED) or not importlib.util.find_spec("fla"):
        return None
    try:
        found: _Convolve = importlib.import_module(_FUSED).causal_conv1d
    except (ImportError, AttributeError):  # an older one, or one without its compiler
        return None
    return found


def _either(fused: _Convolve, theirs: _Convolve) -> _Convolve:
    """Return a function with the signature of `theirs` that calls `fused` for what that takes."""

    def convolve(
        hidden_BCT: Tensor,
        weight_CK: Tensor,
        bias_C: Tensor | None = None,
        activation: str | None = None,
        **options: object,
    ) -> Tensor:
        is_known = activation in _ACTIVATIONS and hidden_BCT.dtype == weight_CK.dtype
        if not (hidden_BCT.is_cuda and is_known):
            result: Tensor = theirs(hidden_BCT, weight_CK, bias_C, activation=activation, **options)
            return result
        output_BTC, _ = fused(hidden_BCT.transpose(1, 2), weight_CK, bias_C, activation=activation)
        turned: Tensor = output_BTC.transpose(1, 2)
        return turned

    return convolve
