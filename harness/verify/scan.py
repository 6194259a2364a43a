"""One pass over the data: numbers about each tensor, and the hash of each file.

Every byte is read once, in the order of the file. Scales are looked at closely; of all other
tensors only whether they are finite is asked. Hashing is done in the same pass, because reading
is what takes the time.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch

from harness.verify.modules import KV_LEAVES, SCALE_LEAVES
from harness.verify.shards import Entry, Shard

_CHUNK_BYTES = 1 << 26
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_FLOAT32_BYTES = 4
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
_E4M3_NAN = 0x7F
_E8M0_NAN = 0xFF


class Facts(NamedTuple):
    """What was seen in one tensor."""

    low: float = math.inf
    """Smallest finite value; infinite where values were not looked at."""
    high: float = -math.inf
    num_non_finite: int = 0
    num_not_positive: int = 0
    num_denormal: int = 0
    """Positive values below float32's smallest normal number, whose reciprocal may be infinite."""

    def merged(self, other: "Facts") -> "Facts":
        """Return the facts of both parts of a tensor."""
        return Facts(
            min(self.low, other.low),
            max(self.high, other.high),
            self.num_non_finite + other.num_non_finite,
            self.num_not_positive + other.num_not_positive,
            self.num_denormal + other.num_denormal,
        )


class ShardScan(NamedTuple):
    """What one pass over a shard found."""

    facts: dict[str, Facts]
    sha256: str


def scan_shard(path: Path, shard: Shard) -> ShardScan:
    """Read a whole shard once."""
    digest = hashlib.sha256()
    facts: dict[str, Facts] = {}
    with path.open("rb") as file:
        digest.update(file.read(shard.data_start))
        position = 0
        for name, entry in sorted(shard.entries.items(), key=lambda item: item[1].start):
            digest.update(file.read(max(entry.start - position, 0)))
            facts[name] = _scan_entry(file, name, entry, digest)
            position = max(position, entry.end)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return ShardScan(facts, digest.hexdigest())


def hash_file(path: Path) -> str:
    """Return the sha256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _scan_entry(file: BinaryIO, name: str, entry: Entry, digest: "hashlib._Hash") -> Facts:
    leaf = name.rpartition(".")[2]
    is_scale = leaf in SCALE_LEAVES or leaf in KV_LEAVES
    facts = Facts()
    for chunk in _chunks(file, entry.end - entry.start):
        digest.update(chunk)
        dtype = entry.header.dtype
        found = _scale_facts(chunk, dtype) if is_scale else _weight_facts(chunk, dtype)
        facts = facts.merged(found)
    return facts


def _chunks(file: BinaryIO, num_bytes: int) -> Iterator[bytearray]:
    while num_bytes > 0:
        chunk = bytearray(min(num_bytes, _CHUNK_BYTES))
        if file.readinto(chunk) != len(chunk):  # type: ignore[attr-defined]  # a buffered file
            return
        yield chunk
        num_bytes -= len(chunk)


def _weight_facts(chunk: bytearray, dtype: str) -> Facts:
    if dtype == "F8_E4M3":
        codes = torch.frombuffer(chunk, dtype=torch.uint8)
        return Facts(num_non_finite=int(((codes & _E4M3_NAN) == _E4M3_NAN).sum()))
    if dtype not in _FLOATS:
        return Facts()
    values = torch.frombuffer(chunk, dtype=_FLOATS[dtype])
    low, high = torch.aminmax(values)  # NaN if one value is
    if bool(torch.isfinite(low) & torch.isfinite(high)):
        return Facts()
    return Facts(num_non_finite=int((~torch.isfinite(values)).sum()))


def _scale_facts(chunk: bytearray, dtype: str) -> Facts:
    if dtype == "F32" and len(chunk) == _FLOAT32_BYTES:
        return _scalar_facts(struct.unpack("<f", chunk)[0])
    if dtype == "U8":  # powers of two, E8M0: no sign and no zero
        codes = torch.frombuffer(chunk, dtype=torch.uint8)
        return Facts(num_non_finite=int((codes == _E8M0_NAN).sum()))
    if dtype == "F8_E4M3":
        values = torch.frombuffer(chunk, dtype=torch.float8_e4m3fn).float()
    elif dtype in _FLOATS:
        values = torch.frombuffer(chunk, dtype=_FLOATS[dtype])
    else:
        return Facts()
    finite = values[torch.isfinite(values)]
    if finite.numel() == 0:
        return Facts(num_non_finite=values.numel())
    return Facts(
        float(finite.min()),
        float(finite.max()),
        values.numel() - finite.numel(),
        int((finite <= 0).sum()),
        int(((finite > 0) & (finite < _SMALLEST_NORMAL)).sum()),
    )


def _scalar_facts(value: float) -> Facts:
    if not math.isfinite(value):
        return Facts(num_non_finite=1)
    is_denormal = 0 < value < _SMALLEST_NORMAL
    return Facts(value, value, 0, int(value <= 0), int(is_denormal))
