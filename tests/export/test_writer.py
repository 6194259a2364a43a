"""The checkpoint's writer against the safetensors package, with tensors of no model."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.artifacts import QuantizedTensor, TensorType
from harness.errors import ReasonCode, StageError
from harness.export import writer as writing
from harness.export.layout import lay_out
from harness.export.manifest import WrittenFile
from harness.export.read_back import check_read_back, read_file, type_of
from harness.export.writer import CheckpointWriter

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


Types = Iterable[tuple[str, TensorType]]


@contextmanager
def opened(
    types: Types, folder: Path, *, max_bytes: int, late: Types = ()
) -> Iterator[CheckpointWriter]:
    """Give a writer of any tensors, as if a plan had them."""
    nothing: Any = SimpleNamespace(path=folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "early_tensors", lambda *_: types)
        patch.setattr(writing, "late_tensors", lambda *_: late)
        into = folder / "out"
        with CheckpointWriter(nothing, nothing, into=into, max_shard_bytes=max_bytes) as writer:
            writer.begin()
            yield writer


def put(writer: CheckpointWriter, tensors: Mapping[str, Tensor]) -> None:
    writer.put([QuantizedTensor("", tensors, "none")])


def finish(writer: CheckpointWriter) -> list[WrittenFile]:
    """Complete the files of weights, and let them outlive the writer."""
    files = writer._finish()  # noqa: SLF001  # all that needs no model
    folder = files[0].path.parent.with_name("finished")
    files[0].path.parent.replace(folder)
    return [file._replace(path=folder / file.path.name) for file in files]


def write_files(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, *, max_bytes: int
) -> list[WrittenFile]:
    """Lay out tensors by what they are, and write them in that order."""
    held = list(tensors)
    shutil.rmtree(folder / "finished", ignore_errors=True)
    types = [(name, type_of(tensor)) for name, tensor in held]
    with opened(types, folder, max_bytes=max_bytes) as writer:
        for name, tensor in held:
            put(writer, {name: tensor})
        return finish(writer)


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
    (shard,) = write_files(meant.items(), tmp_path, max_bytes=EVERYTHING)
    got = read(shard.path)
    assert set(got) == set(meant)
    for name, tensor in meant.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert as_bytes(got[name]) == as_bytes(tensor)


def test_the_reported_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    (shard,) = write_files([("a", torch.ones(3))], tmp_path, max_bytes=EVERYTHING)
    assert shard.sha256 == hashlib.sha256(shard.path.read_bytes()).hexdigest()


def test_tensors_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    (shard,) = write_files([("t", whole.t()), ("s", whole[1:, ::2])], tmp_path, max_bytes=99)
    assert read(shard.path)["t"].equal(whole.t())
    assert read(shard.path)["s"].equal(whole[1:, ::2])


def test_views_of_one_block_and_others_are_written_together(tmp_path: Path) -> None:
    block = torch.arange(48, dtype=torch.uint8).reshape(4, 12)
    many = dict(zip("abcd", block.unbind(), strict=True))
    many |= {"whole": block, "turned": block.t(), "half": block.view(torch.float32)[2:, 1:]}
    many |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5, dtype=torch.float64)}
    with torch.inference_mode():  # as those are that a calibration makes
        many["made"] = (block * 2)[1]
    types = [(name, type_of(tensor)) for name, tensor in many.items()]
    with opened(types, tmp_path, max_bytes=60) as writer:
        put(writer, many)
        files = finish(writer)
    got = {name: tensor for shard in files for name, tensor in read(shard.path).items()}
    assert {name: as_bytes(tensor) for name, tensor in got.items()} == {
        name: as_bytes(tensor) for name, tensor in many.items()
    }


def test_late_tensors_get_files_of_their_own_where_one_is_not_enough(tmp_path: Path) -> None:
    tensors = [("big", torch.zeros(10)), ("more", torch.ones(5)), ("scale", torch.ones(()))]
    types = [(name, type_of(tensor)) for name, tensor in tensors]
    together = lay_out(types[:2], max_bytes=64, late=types[2:])
    apart = lay_out(types[:2], max_bytes=63, late=types[2:])
    assert [list(shard.tensors) for shard in together.shards] == [["big", "more", "scale"]]
    assert [list(shard.tensors) for shard in apart.shards] == [["big", "more"], ["scale"]]
    with opened(types[:2], tmp_path, max_bytes=63, late=types[2:]) as writer:
        put(writer, dict(tensors[:2]))
        assert writer.written().keys() == {"big", "more"}
        put(writer, dict(tensors[2:]))
        assert [file.names for file in finish(writer)] == [("big", "more"), ("scale",)]


def test_a_shard_holds_no_more_than_its_limit(tmp_path: Path) -> None:
    tensors = [(f"t{i}", torch.zeros(10)) for i in range(7)]
    shards = list(write_files(tensors, tmp_path, max_bytes=80))
    assert [shard.data_bytes for shard in shards] == [80, 80, 80, 40]
    assert [name for shard in shards for name in shard.names] == [name for name, _ in tensors]


def test_a_tensor_beyond_the_limit_gets_a_shard_of_its_own(tmp_path: Path) -> None:
    tensors = [("a", torch.zeros(2)), ("big", torch.zeros(100)), ("b", torch.zeros(2))]
    shards = list(write_files(tensors, tmp_path, max_bytes=80))
    assert [shard.names for shard in shards] == [("a",), ("big",), ("b",)]


def test_the_order_in_which_tensors_come_changes_no_byte(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((i + 1,), float(i)) for i in range(9)}
    types = [(name, type_of(tensor)) for name, tensor in tensors.items()]
    found = []
    for folder, names in (("a", list(tensors)), ("b", list(reversed(tensors)))):
        (tmp_path / folder).mkdir()
        with opened(types, tmp_path / folder, max_bytes=80) as writer:
            for name in names:
                put(writer, {name: tensors[name]})
            found.append([(s.path.name, s.sha256, s.names) for s in finish(writer)])
    assert found[0] == found[1]
    assert len(found[0]) > 1


def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MAX_WAITING_BYTES", 100)
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

    monkeypatch.setattr(writing, "num_cores", lambda: 16)
    types = [(name, type_of(tensor)) for name, tensor in held]
    with opened(types, tmp_path, max_bytes=EVERYTHING) as writer:
        monkeypatch.setattr(os, "pwritev", slow)
        for name, tensor in held:
            put(writer, {name: tensor})
        finish(writer)
    assert 1 < most <= 100 // 40


def test_a_tensor_that_the_layout_does_not_have_is_refused(tmp_path: Path) -> None:
    types = [("a", TensorType("F32", (2,)))]
    with opened(types, tmp_path, max_bytes=EVERYTHING) as writer:
        with pytest.raises(StageError, match="'b', which is not expected"):
            put(writer, {"b": torch.zeros(2)})
        with pytest.raises(StageError, match=r"'a', which is F64 \[2\] instead of F32"):
            put(writer, {"a": torch.zeros(2, dtype=torch.float64)})
        with pytest.raises(StageError, match="'a', which is missing"):
            finish(writer)
        put(writer, {"a": torch.zeros(2)})
        with pytest.raises(StageError, match="'a', which is there twice"):
            put(writer, {"a": torch.zeros(2)})


def test_what_a_thread_could_not_write_is_an_error_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    types = [("a", TensorType("F32", (2,)))]
    with opened(types, tmp_path, max_bytes=EVERYTHING) as writer:
        monkeypatch.setattr(os, "pwritev", fail)
        with pytest.raises(OSError, match="Input/output error"):  # noqa: PT012 - either may tell
            put(writer, {"a": torch.zeros(2)})
            finish(writer)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="'a' comes twice"):
        list(write_files([("a", torch.ones(1)), ("a", torch.ones(1))], tmp_path, max_bytes=4))


def compare(path: Path, tensors: Mapping[str, Tensor]) -> None:
    types = [(name, type_of(tensor)) for name, tensor in tensors.items()]
    (shard,) = lay_out(types, max_bytes=EVERYTHING).shards
    meant = [xxhash.xxh3_128_digest(as_bytes(tensors[name])) for name in shard.tensors]
    check_read_back(path, read_file(path), shard, meant)


def test_a_file_with_one_wrong_byte_does_not_pass_the_read_back(tmp_path: Path) -> None:
    meant = {"a": torch.arange(8.0), "b": torch.ones(2)}
    (shard,) = write_files(meant.items(), tmp_path, max_bytes=EVERYTHING)
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
    (shard,) = write_files([("a", torch.ones(4))], tmp_path, max_bytes=EVERYTHING)
    with pytest.raises(StageError, match=message):
        compare(shard.path, wrong)


def test_another_spelling_of_the_header_does_not_pass_the_read_back(tmp_path: Path) -> None:
    meant = {"a": torch.ones(4)}
    (shard,) = write_files(meant.items(), tmp_path, max_bytes=EVERYTHING)
    save_file(meant, shard.path)
    with pytest.raises(StageError, match="its header has other bytes"):
        compare(shard.path, meant)


def exchange_offsets(header: dict[str, Any]) -> None:
    a, b = header["a"], header["b"]
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange_offsets, "the bytes of 'a' differ"),
        (lambda header: header["a"].update(dtype="F16"), r"'a' is F16 \[2, 2\]"),
        (lambda header: header["a"].update(shape=[4, 1]), r"'a' is BF16 \[4, 1\]"),
        (
            lambda header: header.update(c=header.pop("b")),
            "2 tensors instead of 2, and '[bc]' is only in one",
        ),
    ],
)
def test_a_header_that_contradicts_the_layout_it_was_made_from_does_not_pass(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    types = [(name, TensorType("BF16", (2, 2))) for name in "ab"]
    (meant,) = lay_out(types, max_bytes=EVERYTHING).shards
    header = json.loads(meant.header[8:])
    change(header)
    text = json.dumps(header).encode()
    wrong = dataclasses.replace(meant, header=len(text).to_bytes(8, "little") + text)
    path, data = tmp_path / "x.safetensors", (b"A" * 8, b"B" * 8)
    path.write_bytes(wrong.header + b"".join(data))
    with pytest.raises(StageError, match=message):
        check_read_back(path, read_file(path), wrong, [*map(xxhash.xxh3_128_digest, data)])


def test_a_file_that_ends_early_does_not_pass_the_read_back(tmp_path: Path) -> None:
    (shard,) = write_files([("a", torch.ones(4))], tmp_path, max_bytes=EVERYTHING)
    shard.path.write_bytes(shard.path.read_bytes()[:-4])
    with pytest.raises(StageError, match="reads back differently"):
        compare(shard.path, {"a": torch.ones(4)})
