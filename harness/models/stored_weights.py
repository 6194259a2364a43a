"""How large a model's weight files are, and how many bits they take for a weight."""

import math

from harness.artifacts import StoredWeights
from harness.models.source import Source
from harness.models.weight_files import find_weights


def stored_weights(source: Source) -> StoredWeights:
    """Return the size of the files that loaders read; packed tensors count by what they hold."""
    files = [source.path / name for name in find_weights(source.path).files]
    num_bytes = sum(file.stat().st_size for file in files if file.is_file())
    num_weights = sum(math.prod(header.shape) for header in source.tensors.values())
    return StoredWeights(num_bytes=num_bytes, bits_per_weight=8 * num_bytes / max(num_weights, 1))
