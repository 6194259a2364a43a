"""Our safetensors writer against the safetensors package."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.export import shards
from harness.export.layout import lay_out
from harness.export.read_back import check_read_back, meant_by, read_file
from harness.export.shards import Shard, ShardWriter

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


def write_shards(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, *, max_bytes: int
) -> list[Shard]:
    """Lay out tensors by what they are, and write them in that order."""
    held = list(tensors)
    layout = lay_out(((name, meant_by(t).type) for name, t in held), max_bytes=max_bytes)
    for old in folder.glob("*.safetensors"):
        old.unlink()
    with ShardWriter(layout, folder) as writer:
        for name, tensor in held:
            writer.put({name: tensor})
        return writer.finish()


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


def test_views_of_one_block_and_others_are_written_together(tmp_path: Path) -> None:
    block = torch.arange(48, dtype=torch.uint8).reshape(4, 12)
    many = dict(zip("abcd", block.unbind(), strict=True))
    many |= {"whole": block, "turned": block.t(), "half": block.view(torch.float32)[2:, 1:]}
    many |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5, dtype=torch.float64)}
    with torch.inference_mode():  # as those are that a calibration makes
        many["made"] = (block * 2)[1]
    layout = lay_out(((name, meant_by(t).type) for name, t in many.items()), max_bytes=60)
    with ShardWriter(layout, tmp_path) as writer:
        writer.put(many)
        files = writer.finish()
    got = {name: tensor for shard in files for name, tensor in read(shard.path).items()}
    assert {name: as_bytes(tensor) for name, tensor in got.items()} == {
        name: as_bytes(tensor) for name, tensor in many.items()
    }


def test_late_tensors_get_files_of_their_own_where_one_is_not_enough(tmp_path: Path) -> None:
    tensors = [("big", torch.zeros(10)), ("more", torch.ones(5)), ("scale", torch.ones(()))]
    types = [(name, meant_by(tensor).type) for name, tensor in tensors]
    together = lay_out(types[:2], max_bytes=64, late=types[2:])
    apart = lay_out(types[:2], max_bytes=63, late=types[2:])
    assert [list(shard.tensors) for shard in together.shards] == [["big", "more", "scale"]]
    assert [list(shard.tensors) for shard in apart.shards] == [["big", "more"], ["scale"]]
    with ShardWriter(apart, tmp_path) as writer:
        writer.put(dict(tensors[:2]))
        assert writer.hand_over().keys() == {"big", "more"}
        writer.put(dict(tensors[2:]))
        assert [shard.names for shard in writer.finish()] == [("big", "more"), ("scale",)]


def test_a_shard_holds_no_more_than_its_limit(tmp_path: Path) -> None:
    tensors = [(f"t{i}", torch.zeros(10)) for i in range(7)]
    shards = list(write_shards(tensors, tmp_path, max_bytes=80))
    assert [shard.data_bytes for shard in shards] == [80, 80, 80, 40]
    assert [name for shard in shards for name in shard.names] == [name for name, _ in tensors]


def test_a_tensor_beyond_the_limit_gets_a_shard_of_its_own(tmp_path: Path) -> None:
    tensors = [("a", torch.zeros(2)), ("big", torch.zeros(100)), ("b", torch.zeros(2))]
    shards = list(write_shards(tensors, tmp_path, max_bytes=80))
    assert [shard.names for shard in shards] == [("a",), ("big",), ("b",)]


def test_the_order_in_which_tensors_come_changes_no_byte(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((i + 1,), float(i)) for i in range(9)}
    layout = lay_out(((n, meant_by(t).type) for n, t in tensors.items()), max_bytes=80)
    found = []
    for folder, names in (("a", list(tensors)), ("b", list(reversed(tensors)))):
        (tmp_path / folder).mkdir()
        with ShardWriter(layout, tmp_path / folder) as writer:
            for name in names:
                writer.put({name: tensors[name]})
            found.append([(s.path.name, s.sha256, s.names) for s in writer.finish()])
    assert found[0] == found[1]
    assert len(found[0]) > 1


def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_MAX_WAITING_BYTES", 100)
    held = [(f"t{i}", torch.zeros(10)) for i in range(40)]
    at_once, most, lock = 0, 0, threading.Lock()
    write_at = os.pwritev

    def slow(file: int, contents: Sequence[memoryview], offset: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        written = write_at(file, contents, offset)
        with lock:
            at_once -= 1
        return written

    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    layout = lay_out(((name, meant_by(t).type) for name, t in held), max_bytes=EVERYTHING)
    with ShardWriter(layout, tmp_path) as writer:
        monkeypatch.setattr(os, "pwritev", slow)
        for name, tensor in held:
            writer.put({name: tensor})
        writer.finish()
    assert 1 < most <= 100 // 40


def test_a_tensor_that_the_layout_does_not_have_is_refused(tmp_path: Path) -> None:
    layout = lay_out([("a", TensorType("F32", (2,)))], max_bytes=EVERYTHING)
    with ShardWriter(layout, tmp_path) as writer:
        with pytest.raises(StageError, match="'b', which is not expected"):
            writer.put({"b": torch.zeros(2)})
        with pytest.raises(StageError, match=r"'a', which is torch.float64 \[2\] instead of F32"):
            writer.put({"a": torch.zeros(2, dtype=torch.float64)})
        with pytest.raises(StageError, match="'a', which is missing"):
            writer.finish()
        writer.put({"a": torch.zeros(2)})
        with pytest.raises(StageError, match="'a', which is there twice"):
            writer.put({"a": torch.zeros(2)})


def test_what_a_thread_could_not_write_is_an_error_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    layout = lay_out([("a", TensorType("F32", (2,)))], max_bytes=EVERYTHING)
    with ShardWriter(layout, tmp_path) as writer:
        monkeypatch.setattr(os, "pwritev", full)
        with pytest.raises(OSError, match="No space left"):  # noqa: PT012 - either may tell
            writer.put({"a": torch.zeros(2)})
            writer.finish()


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="'a' comes twice"):
        list(write_shards([("a", torch.ones(1)), ("a", torch.ones(1))], tmp_path, max_bytes=4))


def compare(path: Path, tensors: Mapping[str, Tensor]) -> None:
    check_read_back(path, read_file(path), {name: meant_by(t) for name, t in tensors.items()})


def test_a_file_with_one_wrong_byte_does_not_pass_the_read_back(tmp_path: Path) -> None:
    meant = {"a": torch.arange(8.0), "b": torch.ones(2)}
    (shard,) = write_shards(meant.items(), tmp_path, max_bytes=EVERYTHING)
    content = bytearray(shard.path.read_bytes())
    content[-1] ^= 1
    shard.path.write_bytes(content)
    with pytest.raises(StageError, match="the bytes of 'b' differ") as caught:
        compare(shard.path, meant)
    assert caught.value.reason is ReasonCode.READ_BACK_MISMATCH


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": torch.ones(2, 2)}, r"'a' is F32 \[4\]"),
        ({"a": torch.ones(4, dtype=torch.int32)}, r"'a' is F32 \[4\]"),
        ({"a": torch.ones(4), "b": torch.ones(1)}, "1 tensors instead of 2"),
    ],
)
def test_a_wrong_shape_type_or_set_does_not_pass_the_read_back(
    tmp_path: Path, wrong: dict[str, Tensor], message: str
) -> None:
    (shard,) = write_shards([("a", torch.ones(4))], tmp_path, max_bytes=EVERYTHING)
    with pytest.raises(StageError, match=message):
        compare(shard.path, wrong)


def test_a_file_that_ends_early_does_not_pass_the_read_back(tmp_path: Path) -> None:
    (shard,) = write_shards([("a", torch.ones(4))], tmp_path, max_bytes=EVERYTHING)
    shard.path.write_bytes(shard.path.read_bytes()[:-4])
    with pytest.raises(StageError, match="reads back differently"):
        compare(shard.path, {"a": torch.ones(4)})
