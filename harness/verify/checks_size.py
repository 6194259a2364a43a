"""Is the checkpoint as small as it says?"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from harness.artifacts import Check, DeclaredSize, Severity, TensorHeader
from harness.models import find_weights
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.modules import (
    Module,
    is_draft,
    is_head,
    is_plain_linear,
    is_quantized,
    is_vision,
    weight_of,
)

_CLAIMED_BITS: Mapping[str, float] = {
    "NVFP4": 4.5,
    "W4A16_NVFP4": 4.5,
    "W4A8_NVFP4_FP8": 4.25,
    "MXFP4": 4.25,
    "W4A16_AWQ": 4.25,
    "MXFP8": 8.25,
}
_EIGHT_BITS = 8.0
_TOLERATED = 1.05
"""Scales a row or a tensor come on top, and they matter for small layers alone."""
_TOO_FEW = 0.2
"""Experts are nine tenths of a model's weights; with them left out, less than this remains."""
_SMALL = 1 << 16
"""Weights; of smaller layers nothing is concluded from scalars."""


class _Layer(NamedTuple):
    num_weights: int
    num_bits: int


def bits_as_claimed(contents: Contents) -> Check:
    """Ask whether quantized layers take the bits of their format, and whether enough are.

    The second is a warning: a mixed recipe may leave out what it likes.
    """
    heavy, quantized, plain = [], 0, 0
    for name, module in contents.modules.items():
        if is_quantized(module):
            layer = _stored(contents, name, module)
            quantized += layer.num_weights
            claimed = _CLAIMED_BITS.get(contents.algo_of(name) or "", _EIGHT_BITS)
            bits = layer.num_bits / max(layer.num_weights, 1)
            if bits > claimed * _TOLERATED and layer.num_weights >= _SMALL:
                heavy.append(f"{name} takes {bits:.2f} bits a weight and not {claimed}")
        elif _counts(name, module) and not is_draft(name, contents.drafts):
            plain += sum(math.prod(header.shape) for header in module.values())
    share = quantized / max(quantized + plain, 1)
    faults = heavy or ([f"{plain} weights are not"] if 0 < share < _TOO_FEW else [])
    algo = contents.declared.algorithm if contents.declared else None
    return finding(
        "bits-per-weight",
        faults,
        good=f"{share:.0%} of the decoder's linear weights are quantized, each layer at the size "
        "of its format",
        bad=f"{len(heavy)} layers are larger than their format"
        if heavy
        else f"declared {algo}, but only {share:.0%} of the decoder's linear weights are quantized",
        severity=Severity.ERROR if heavy else Severity.WARNING,
    )


def declared_size(contents: Contents) -> DeclaredSize:
    """Return how large the files are, and what their formats promise.

    What is declared to be quantized counts though it is stored as it was: that is what is promised.
    """
    num_weights, num_bits = 0, 0.0
    for name, module in contents.modules.items():
        claimed = _CLAIMED_BITS.get(contents.algo_of(name) or "", _EIGHT_BITS)
        if is_quantized(module):
            count = _stored(contents, name, module).num_weights
        elif contents.expected[name] and _counts(name, module):
            count = sum(math.prod(header.shape) for header in module.values())
        else:
            continue
        num_weights += count
        num_bits += count * claimed
    weights = find_weights(contents.directory)
    files = (contents.directory / name for name in (*weights.files, *weights.stray))
    return DeclaredSize(
        num_bytes=sum(file.stat().st_size for file in files if file.is_file()),
        num_weights=num_weights,
        promised_bits=num_bits / max(num_weights, 1),
    )


def _stored(contents: Contents, name: str, module: Module) -> _Layer:
    layout, weight = contents.layout_of(name), weight_of(module)
    if layout is None or weight is None:
        return _Layer(0, 0)
    leaves = {stored.leaf for stored in layout.tensors.values()}
    num_bytes = sum(h.num_bytes for leaf, h in module.items() if leaf in leaves)
    return _Layer(math.prod(weight.shape) * layout.packed * layout.packed_rows, 8 * num_bytes)


def _counts(name: str, module: Mapping[str, TensorHeader]) -> bool:
    """Return whether a layer is one that formats are made for: no tower, no head, large."""
    return is_plain_linear(name, module) and not (is_vision(name) or is_head(name))
