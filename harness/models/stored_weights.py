"""How large a model's weight files are, and how many bits they take for a weight."""

import math
from typing import TYPE_CHECKING

from harness.artifacts import StoredWeights
from harness.models.weight_files import find_weights

if TYPE_CHECKING:
    from harness.models.source import Source


def stored_weights(source: "Source") -> StoredWeights:
    """Return the size of the files that loaders read, and the bits of what can be quantized.

    Where makers publish a part in fewer bits, it is that part which is quantized anew, so its bits
    count; else those of all tensors together.
    """
    files = [source.path / name for name in find_weights(source.path).files]
    num_bytes = sum(file.stat().st_size for file in files if file.is_file())
    if source.packed:
        parts = source.packed.values()
        num_bits = 8 * sum(one.codes.num_bytes + one.scales.num_bytes for one in parts)
        num_weights = sum(math.prod(source.tensors[name].shape) for name in source.packed)
    else:
        num_bits = 8 * num_bytes
        num_weights = sum(math.prod(header.shape) for header in source.tensors.values())
    return StoredWeights(num_bytes=num_bytes, bits_per_weight=num_bits / max(num_weights, 1))
