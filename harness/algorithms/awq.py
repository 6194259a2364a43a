"""Powers of two that take outliers out of a layer's inputs and put them into its weights.

A block of 16 inputs has one scale, so one feature with a hundred times the others' values leaves
these without a code. Feature j of the inputs is divided by 2^k and column j of the weights
multiplied with it, which changes no product. What k evens out best is tried, as AWQ does: a power
of what inputs are like, and of that over what weights are like; the least error of the layer's
output decides, with weights and inputs rounded as the format does.

Factors are powers of two, because those change an exponent and no digit: whatever is multiplied
with them computes the same bits.

Source: Lin et al., "AWQ", arXiv 2306.00978; Xiao et al., "SmoothQuant", arXiv 2211.10438.
Shapes: N tokens, O output features, I input features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.formats.nvfp4 import FORMAT, in_blocks

_BIAS, _DIGITS = 127, 23
"""Of float32."""
_SHARES = (0.25, 0.5, 0.75)
_LEAST, _MOST = -1, 2
"""Of an exponent. A column that is multiplied with more leaves less of a code to the others of its
blocks, until nothing in the files tells whether these are right: with 5, most of them may become
zero where outliers are strong."""
_LARGE, _ROWS_SHOWN = 0.5, 3
"""Of a block's largest value, and in how many rows; `harness verify` asks for less of both."""
_PASSES = 4
"""A column that is left as it is may be large beside others."""
_WON = 0.98
"""Of the error without smoothing: what is not won by more is left as it is."""


def choose_exponents(x_NI: Tensor, weight_OI: Tensor, *, rounds_inputs: bool) -> Tensor:
    """Return k [I], int8: inputs are to be divided by 2^k; all zeros where that wins nothing.

    Args:
        x_NI: inputs of some tokens, of any floating type.
        weight_OI: the weights that read them, or some rows of these.
        rounds_inputs: whether the layer rounds its inputs to NVFP4 too.
    """
    x_NI, weight_OI = x_NI.float(), weight_OI.float()
    output_NO = x_NI @ weight_OI.mT
    best_I = torch.zeros(x_NI.shape[-1], dtype=torch.int8, device=x_NI.device)
    least = _WON * _error(x_NI, weight_OI, output_NO, rounds_inputs=rounds_inputs)
    for tried_I in _tried(x_NI, weight_OI):
        exponent_I = _seen(tried_I, weight_OI)
        x, weight = x_NI * power_of_two(-exponent_I), weight_OI * power_of_two(exponent_I)
        error = _error(x, weight, output_NO, rounds_inputs=rounds_inputs)
        if error < least:
            best_I, least = exponent_I.to(torch.int8), error
    return best_I


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^k, float32, exactly: torch's own functions need not round to it."""
    return ((exponent.int() + _BIAS) << _DIGITS).view(torch.float32)


def _tried(x_NI: Tensor, weight_OI: Tensor) -> Iterator[Tensor]:
    """Yield exponents [I], around zero."""
    energy_I, largest_I = x_NI.square().mean(0).sqrt(), x_NI.abs().amax(0)
    weight_I = weight_OI.abs().amax(0)
    for share in _SHARES:
        yield _even(share * _log2(energy_I))
        yield _even(share * _log2(largest_I) - (1 - share) * _log2(weight_I))


def _seen(exponent_I: Tensor, weight_OI: Tensor) -> Tensor:
    """Return exponents without those that rounded weights would not show.

    Where a column is small beside its blocks in nearly all rows, little is left of it, and nobody
    could tell from the files what it was multiplied with.
    """
    for _ in range(_PASSES):
        scaled_OI = weight_OI.abs() * power_of_two(exponent_I)
        blocks_OBk = in_blocks(scaled_OI)
        is_large = blocks_OBk >= _LARGE * blocks_OBk.amax(-1, keepdim=True)
        is_shown_I = (is_large.flatten(1) & (scaled_OI > 0)).sum(0) >= _ROWS_SHOWN
        exponent_I = torch.where(is_shown_I, exponent_I, 0)
    return exponent_I


def _even(log_I: Tensor) -> Tensor:
    return (log_I - log_I.median()).round().clamp(_LEAST, _MOST).int()


def _log2(x_I: Tensor) -> Tensor:
    """Return logarithms; a feature that is always zero counts as a small one."""
    return x_I.clamp(min=float(x_I.max()) * 2.0**-16 + torch.finfo(torch.float32).tiny).log2()


def _error(x_NI: Tensor, weight_OI: Tensor, output_NO: Tensor, *, rounds_inputs: bool) -> float:
    """Return the squared error of the output."""
    if rounds_inputs:
        scale = FORMAT.input_scale(float(x_NI.abs().max()))
        x_NI = FORMAT.qdq_input(x_NI, input_scale=scale)
    stored = FORMAT.quantize_weight(weight_OI, amax=float(weight_OI.abs().max()))
    rounded_OI = FORMAT.dequantize_weight(stored, dtype=torch.float32)
    return float((x_NI @ rounded_OI.mT - output_NO).square().mean())
