"""Our safetensors writer against the safetensors package."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from harness.errors import ReasonCode, StageError
from harness.export.shards import check_read_back, write_shards

DTYPES = (
    torch.uint8,
    torch.int64,
    torch.bool,
    torch.float8_e4m3fn,
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
)
EVERYTHING = 2**30


def read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping


def as_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def some(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 2).reshape(shape).to(dtype)


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(kinds=st.lists(st.tuples(st.sampled_from(DTYPES), shapes), min_size=1, max_size=8))
def test_every_type_and_shape_is_read_back_by_the_package(
    tmp_path: Path, kinds: list[tuple[torch.dtype, tuple[int, ...]]]
) -> None:
    meant = {f"t{i}": some(dtype, shape) for i, (dtype, shape) in enumerate(kinds)}
    (shard,) = write_shards(meant.items(), tmp_path, max_bytes=EVERYTHING)
    got = read(shard.path)
    assert set(got) == set(meant)
    for name, tensor in meant.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert as_bytes(got[name]) == as_bytes(tensor)


def test_the_reported_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    (shard,) = write_shards([("a", torch.ones(3))], tmp_path, max_bytes=EVERYTHING)
    assert shard.sha256 == hashlib.sha256(shard.path.read_bytes()).hexdigest()


def test_tensors_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    (shard,) = write_shards([("t", whole.t()), ("s", whole[1:, ::2])], tmp_path, max_bytes=99)
    assert read(shard.path)["t"].equal(whole.t())
    assert read(shard.path)["s"].equal(whole[1:, ::2])


def test_a_shard_holds_no_more_than_its_limit(tmp_path: Path) -> None:
    tensors = [(f"t{i}", torch.zeros(10)) for i in range(7)]
    shards = list(write_shards(tensors, tmp_path, max_bytes=80))
    assert [shard.data_bytes for shard in shards] == [80, 80, 80, 40]
    assert [name for shard in shards for name in shard.names] == [name for name, _ in tensors]


def test_a_tensor_beyond_the_limit_gets_a_shard_of_its_own(tmp_path: Path) -> None:
    tensors = [("a", torch.zeros(2)), ("big", torch.zeros(100)), ("b", torch.zeros(2))]
    shards = list(write_shards(tensors, tmp_path, max_bytes=80))
    assert [shard.names for shard in shards] == [("a",), ("big",), ("b",)]


def test_only_one_shard_is_held_at_a_time(tmp_path: Path) -> None:
    pulled: list[int] = []

    def stream() -> Iterator[tuple[str, Tensor]]:
        for index in range(6):
            pulled.append(index)
            yield f"t{index}", torch.zeros(10)

    for number, _ in enumerate(write_shards(stream(), tmp_path, max_bytes=80), start=1):
        assert len(pulled) <= 2 * number + 1


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="'a' comes twice"):
        list(write_shards([("a", torch.ones(1)), ("a", torch.ones(1))], tmp_path, max_bytes=4))


def test_a_file_with_one_wrong_byte_does_not_pass_the_read_back(tmp_path: Path) -> None:
    meant = {"a": torch.arange(8.0), "b": torch.ones(2)}
    (shard,) = write_shards(meant.items(), tmp_path, max_bytes=EVERYTHING)
    content = bytearray(shard.path.read_bytes())
    content[-1] ^= 1
    shard.path.write_bytes(content)
    with pytest.raises(StageError, match="the bytes of 'b' differ") as caught:
        check_read_back(shard.path, meant)
    assert caught.value.reason is ReasonCode.READ_BACK_MISMATCH


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": torch.ones(2, 2)}, "'a' is torch.float32"),
        ({"a": torch.ones(4, dtype=torch.int32)}, "'a' is torch.float32"),
        ({"a": torch.ones(4), "b": torch.ones(1)}, "1 tensors instead of 2"),
    ],
)
def test_a_wrong_shape_type_or_set_does_not_pass_the_read_back(
    tmp_path: Path, wrong: dict[str, Tensor], message: str
) -> None:
    (shard,) = write_shards([("a", torch.ones(4))], tmp_path, max_bytes=EVERYTHING)
    with pytest.raises(StageError, match=message):
        check_read_back(shard.path, wrong)


def test_a_file_that_ends_early_does_not_pass_the_read_back(tmp_path: Path) -> None:
    (shard,) = write_shards([("a", torch.ones(4))], tmp_path, max_bytes=EVERYTHING)
    shard.path.write_bytes(shard.path.read_bytes()[:-4])
    with pytest.raises(StageError, match="reads back differently"):
        check_read_back(shard.path, {"a": torch.ones(4)})
