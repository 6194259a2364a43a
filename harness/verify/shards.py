"""Headers of safetensors files, read so that a broken file becomes a finding.

What a file says is read by harness/reading, as strictly as the safetensors package, which refuses a
file at the first thing that is wrong with it; a verifier must go on and say what is wrong.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import TensorHeader
from harness.errors import ReasonCode, UsageError
from harness.reading import DTYPE_BITS, examine_weights

ITEM_BYTES = {name: bits // 8 for name, bits in DTYPE_BITS.items() if bits % 8 == 0}


class Entry(NamedTuple):
    """One tensor of a shard and where its data lies."""

    header: TensorHeader
    start: int
    """First byte of its data, counted from the beginning of the data."""
    end: int


class Shard(NamedTuple):
    """One safetensors file."""

    name: str
    entries: Mapping[str, Entry]
    """By tensor name; empty where the header cannot be read."""
    data_start: int
    """Where the data begins in the file."""
    problem: str | None
    """What is wrong with the file; its data must not be read then."""


def read_shard(path: Path) -> Shard:
    """Read a shard's header and compare it with the size of the file.

    Raises:
        UsageError: it holds a type that is not read here, of which nothing can be said.
    """
    header = examine_weights(path)
    for name, tensor in header.tensors.items():
        if tensor.dtype not in ITEM_BYTES:
            message = (
                f"'{path}' stores '{name}' as {tensor.dtype}, which is not read here; what shares "
                "bytes is read as U8. Nothing is said about the checkpoint."
            )
            raise UsageError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)
    entries = {
        name: Entry(
            TensorHeader(
                shard=path.name,
                dtype=tensor.dtype,
                shape=tensor.shape,
                num_bytes=tensor.end - tensor.begin,
                offset=header.data_start + tensor.begin,
            ),
            tensor.begin,
            tensor.end,
        )
        for name, tensor in header.tensors.items()
    }
    problem = f"{path.name} {header.problem.why}" if header.problem else None
    return Shard(path.name, entries, header.data_start, problem)
