"""Where each tensor of a checkpoint will lie, before there is one: files, headers, offsets.

Since every tensor has its place from the start, they may come in any order, from several threads or
processes, and the files are the same to the byte.

Source: https://github.com/huggingface/safetensors, README, section "Format".
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.reading import DTYPE_BITS


class Place(NamedTuple):
    """Where a tensor lies."""

    shard: int
    """Index of its file."""
    offset: int
    """Of its first byte in the file."""
    end: int
    """Where the next one begins."""
    type: TensorType


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardLayout:
    """One file, of which no data is written yet."""

    name: str
    header: bytes
    """Everything before the data."""
    tensors: Mapping[str, TensorType]
    """In the order of their bytes."""

    @property
    def data_bytes(self) -> int:
        """Return the size of its tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointLayout:
    """All files of weights."""

    shards: tuple[ShardLayout, ...]
    places: Mapping[str, Place]


def lay_out(
    tensors: Iterable[tuple[str, TensorType]],
    *,
    max_bytes: int,
    late: Iterable[tuple[str, TensorType]] = (),
) -> CheckpointLayout:
    """Give each tensor its place; a shard holds at most `max_bytes`, or one bigger tensor alone.

    Args:
        tensors: names and types.
        max_bytes: of the data of a shard.
        late: more of them, which come when others have long been written. Where there is more than
            one shard they get their own, so that no big one has to wait for them.

    Raises:
        StageError: a name comes twice.
    """
    every, last = list(tensors), list(late)
    if sum(tensor.num_bytes for _, tensor in chain(every, last)) <= max_bytes:
        every, last = every + last, []
    groups = list(_groups(every, last, max_bytes))
    shards = tuple(
        _shard(_shard_name(number, len(groups)), group)
        for number, group in enumerate(groups, start=1)
    )
    places = {
        name: place for index, shard in enumerate(shards) for name, place in _places(index, shard)
    }
    return CheckpointLayout(shards=shards, places=places)


def _groups(
    tensors: Sequence[tuple[str, TensorType]],
    late: Sequence[tuple[str, TensorType]],
    max_bytes: int,
) -> Iterator[dict[str, TensorType]]:
    group: dict[str, TensorType] = {}
    group_bytes, seen = 0, set[str]()
    for number, (name, tensor) in enumerate(chain(tensors, late)):
        if name in seen:
            message = f"the tensor '{name}' comes twice. The source's names are ambiguous."
            raise StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)
        seen.add(name)
        num_bytes = tensor.num_bytes
        if group and (group_bytes + num_bytes > max_bytes or number == len(tensors)):
            yield group
            group, group_bytes = {}, 0
        group[name] = tensor
        group_bytes += num_bytes
    yield group


def _shard(name: str, group: Mapping[str, TensorType]) -> ShardLayout:
    # Big elements first, so that every tensor begins at a multiple of its element's size.
    order = sorted(group, key=lambda name: -DTYPE_BITS[group[name].dtype])
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key in order:
        end = position + group[key].num_bytes
        header[key] = {
            "dtype": group[key].dtype,
            "shape": list(group[key].shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return ShardLayout(
        name=name,
        header=len(text).to_bytes(8, "little") + text,
        tensors={key: group[key] for key in order},
    )


def _places(index: int, shard: ShardLayout) -> Iterator[tuple[str, Place]]:
    offset = len(shard.header)
    for name, tensor in shard.tensors.items():
        end = offset + tensor.num_bytes
        yield name, Place(index, offset, end, tensor)
        offset = end


def _shard_name(number: int, num_shards: int) -> str:
    if num_shards == 1:
        return "model.safetensors"
    return f"model-{number:05d}-of-{num_shards:05d}.safetensors"
