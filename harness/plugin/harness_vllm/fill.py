"""NaN in every parameter before loading, so that a hole cannot look like a value.

vLLM allocates most parameters with `torch.empty` and gives a few scales the value 1: what a
missing tensor leaves behind is either whatever the memory held, which differs from run to run, or
a plausible number. Packed codes are integers and have no NaN; the tape alone finds their holes.
"""

from collections.abc import Iterable

import torch

from .ledger import Parameter

_NAN_BITS = {
    torch.float8_e4m3fn: 0x7F,
    torch.float8_e5m2: 0x7F,
    torch.float8_e8m0fnu: 0xFF,
}


def fill_with_nan(parameters: Iterable[Parameter]) -> None:
    """Overwrite every floating-point parameter, but padded ones: their rest is never loaded."""
    with torch.no_grad():
        for parameter in parameters:
            if parameter.is_padded:
                continue
            data = parameter.tensor.data
            bits = _NAN_BITS.get(data.dtype)
            if bits is not None:
                data.view(torch.uint8).fill_(bits)
            elif data.is_floating_point():
                data.fill_(float("nan"))
