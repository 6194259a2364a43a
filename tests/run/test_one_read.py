"""A model that is run layer by layer is quantized while it is in memory: same files."""

import errno
import os
import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import making, pipeline
from harness.artifacts import Checkpoint, QuantizedTensor
from harness.calibrate import Calibration, forward
from harness.export import CheckpointWriter
from harness.models import ResidentLayer
from harness.preflight import preflight
from harness.quantize import ResidentQuantizer, fetched, quantize
from harness.recipe import Request
from harness.runs import run_job

Make = Callable[..., Checkpoint]


@pytest.fixture
def make(calibration_jsonl: Path, tmp_path: Path) -> Make:
    """Return a function that quantizes a model into a folder of `tmp_path`."""

    def made(model: Path, name: str, **options: Any) -> Checkpoint:  # noqa: ANN401 - of a request
        asked: dict[str, Any] = {
            "calib_data": str(calibration_jsonl),
            "calib_size": 12,
            "calib_seq": 64,
            "device": "cpu",
        }
        request = Request(model=str(model), **asked | options)
        job = preflight(request, into=tmp_path / name, scored=False)
        _, record = run_job(job, into=tmp_path / name, work=pipeline.make_checkpoint)
        assert record.failure is None, record.failure
        assert record.checkpoint is not None
        return record.checkpoint

    return made


def damage(model: Path, part: str, where: slice) -> str:
    """Put NaN into the first tensor with `part` in its name; return the name."""
    weights = load_file(model / "model.safetensors")
    name = next(key for key in weights if part in key)
    weights[name].view(-1)[where] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return name


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Return, for each run to come, what is read from the files when calibration has ended.

    These are layers that are quantized, and tensors that are not.
    """
    found: list[set[str]] = []

    def seen(source: Any, plan: Any, stats: Any, **options: Any) -> Iterator[QuantizedTensor]:  # noqa: ANN401 - passed on
        quantized = {p.linear.source.tensor for p in plan.quantized}
        wanted = {p.linear.name for p in plan.quantized} | (source.tensors.keys() - quantized)
        found.append(wanted - options["done"])
        return quantize(source, plan, stats, **options)

    monkeypatch.setattr(making, "quantize", seen)
    return found


_FAMILIES = ["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3"]
_FORMATS = [("nvfp4", "fp8"), ("fp8", "fp8")]
_CASES = [
    *product(_FAMILIES, _FORMATS),
    ("qwen3_moe", ("w4a16_nvfp4", "none")),
    ("qwen3", ("fp8_per_channel_per_token", "nvfp4")),
    *product(["qwen3_5_moe"], [("fp8_block", "none"), ("mxfp8", "fp8"), ("mxfp4", "none")]),
]


@pytest.mark.parametrize(("family", "formats"), _CASES)
def test_files_are_those_of_a_model_that_is_read_twice(
    request: pytest.FixtureRequest,
    make: Make,
    read_again: list[set[str]],
    family: str,
    formats: tuple[str, str],
) -> None:
    qformat, kv = formats
    model, tmp_path = request.getfixturevalue(f"tiny_{family}"), request.getfixturevalue("tmp_path")
    whole = make(model, "a", layerwise=False, qformat=qformat, kv_cache=kv)
    layers = make(model, "b", layerwise=True, qformat=qformat, kv_cache=kv)
    assert layers.sha256 == whole.sha256
    ranges = [(tmp_path / run / "calibration.safetensors").read_bytes() for run in "ab"]
    assert ranges[0] == ranges[1]
    assert len(read_again[0]) > whole.num_quantized
    assert read_again[1] == set()


def test_a_quantized_output_layer_is_the_same_layer_by_layer(
    tiny_qwen3_5_moe: Path, make: Make
) -> None:
    """It is in no decoder layer, and one checkpoint has two formats."""
    asked = {"qformat": "w4a16_nvfp4_fp8_attention", "kv_cache": "fp8"}
    whole = make(tiny_qwen3_5_moe, "a", layerwise=False, **asked)
    assert make(tiny_qwen3_5_moe, "b", layerwise=True, **asked).sha256 == whole.sha256


@pytest.mark.parametrize("changed", ["chat_template.jinja", "tokenizer_config.json"])
def test_what_lies_beside_the_weights_is_not_found_done_before(
    tiny_qwen3: Path, make: Make, tmp_path: Path, changed: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_qwen3, model)
    before = make(model, "run", qformat="nvfp4")
    assert make(model, "run", qformat="nvfp4") == before
    (model / changed).write_text((model / changed).read_text() + "\n")
    after = make(model, "run", qformat="nvfp4")
    assert (tmp_path / "run/checkpoint" / changed).read_bytes() == (model / changed).read_bytes()
    assert after.digest != before.digest


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("qformat", ["nvfp4", "fp8"])
def test_files_of_a_gpu_are_the_same_whole_and_layer_by_layer(
    request: pytest.FixtureRequest, make: Make, family: str, qformat: str
) -> None:
    model = request.getfixturevalue(f"tiny_{family}")
    asked = {"qformat": qformat, "kv_cache": "fp8", "device": "cuda"}
    whole = make(model, "a", layerwise=False, **asked)
    assert make(model, "b", layerwise=True, **asked).sha256 == whole.sha256
    bounded = make(model, "c", layerwise=True, gpu_memory="1GiB", **asked)
    assert bounded.sha256 == whole.sha256


Seen = list[tuple[str, str, bool]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Return what is done with each layer, in its order: what, with which, in the main thread."""
    seen: Seen = []

    def see(what: str, layer: str) -> None:
        seen.append((what, layer, threading.current_thread() is threading.main_thread()))

    class Quantizer(ResidentQuantizer):
        def prepare(self, device: torch.device) -> None:
            time.sleep(0.05)
            see("prepare", "")
            super().prepare(device)

        def quantize(self, stacks: Any, amax: Any, moments_of: Any = None) -> Any:  # noqa: ANN401 - passed on
            see("quantize", next(iter(amax)).split(".")[2])
            return super().quantize(stacks, amax, moments_of)

    class Writer(CheckpointWriter):
        def put(self, tensors: Iterable[QuantizedTensor], *, here: bool = False) -> None:
            if not here and threading.current_thread() is not threading.main_thread():
                held = list(tensors)
                time.sleep(0.05)
                see("put", next(iter(held[0].tensors)).split(".")[2])
                tensors = held
            super().put(tensors, here=here)

    class Layers(Calibration):
        def run(self, layer: ResidentLayer) -> None:
            see("run", str(layer.number))
            super().run(layer)

    monkeypatch.setattr(making, "ResidentQuantizer", Quantizer)
    monkeypatch.setattr(making, "Calibration", Layers)
    monkeypatch.setattr(pipeline, "CheckpointWriter", Writer)
    return seen


def test_a_thread_writes_a_layer_while_it_runs_and_before_the_next_is_quantized(
    make: Make, tiny_qwen3: Path, steps: Seen
) -> None:
    make(tiny_qwen3, "a", layerwise=True, qformat="w4a16_nvfp4", kv_cache="fp8")
    at = {(what, layer): number for number, (what, layer, _) in enumerate(steps)}
    assert {(what, is_main) for what, _, is_main in steps} == {
        ("prepare", False),
        ("quantize", True),
        ("run", True),
        ("put", False),
    }
    assert at["prepare", ""] < at["quantize", "0"] < at["run", "0"] < at["put", "0"]
    assert at["put", "0"] < at["quantize", "1"] < at["run", "1"] < at["put", "1"]


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_that_thread_could_not_do_ends_the_calibration(
    make: Make,
    tiny_qwen3: Path,
    steps: Seen,
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
) -> None:
    num_put = 0

    def fail(stacks: Iterable[Any]) -> Iterator[QuantizedTensor]:
        nonlocal num_put
        num_put += 1
        if num_put == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield from fetched(stacks)

    monkeypatch.setattr(making, "fetched", fail)
    with pytest.raises(AssertionError, match="no space is left"):
        make(tiny_qwen3, "a", layerwise=True, qformat="nvfp4")
    assert [what for what, *_ in steps].count("quantize") == fails_at


def test_lack_of_memory_on_the_host_is_told_in_one_line(
    make: Make, tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(_: object) -> Iterator[QuantizedTensor]:
        torch.empty(1 << 50)
        yield from ()

    monkeypatch.setattr(making, "fetched", too_much)
    with pytest.raises(AssertionError, match="no memory of the host left"):
        make(tiny_qwen3, "a", layerwise=True, qformat="nvfp4")


def test_a_layer_that_comes_again_is_quantized_once(
    make: Make, tiny_qwen3_moe: Path, steps: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is not enough for the second layer, once; then all come again."""
    run_layer, num_runs = forward._run_layer, 0  # noqa: SLF001  # fails in the middle

    def fail_once(*arguments: Any) -> object:  # noqa: ANN401 - passed on
        nonlocal num_runs
        num_runs += 1
        if num_runs == 2:
            torch.empty(1 << 50)
        return run_layer(*arguments)

    monkeypatch.setattr(forward, "_run_layer", fail_once)
    make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4")
    assert [layer for what, layer, _ in steps if what == "quantize"] == ["0", "1"]
    assert len([layer for what, layer, _ in steps if what == "run"]) > 2


def test_a_calibration_that_is_stopped_leaves_no_files(
    make: Make, tiny_qwen3_moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0
    run_layer = forward._run_layer  # noqa: SLF001  # fails in the middle

    def fail(*arguments: Any) -> object:  # noqa: ANN401 - passed on
        nonlocal runs
        runs += 1
        if runs == 5:
            assert (tmp_path / "a" / "checkpoint.partial" / "model.safetensors").is_file()
            message = "boom"
            raise KeyError(message)
        return run_layer(*arguments)

    monkeypatch.setattr(forward, "_run_layer", fail)
    with pytest.raises(KeyError):
        make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4")
    assert not list((tmp_path / "a").glob("checkpoint*"))


def test_damage_in_what_is_written_beside_ends_the_run(
    make: Make, tiny_qwen3_5_moe: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_qwen3_5_moe, tmp_path / "damaged")
    name = damage(model, "visual", slice(0, 1))
    with pytest.raises(AssertionError, match=re.escape(f"'{name}' holds NaN")):
        make(model, "a", layerwise=True, qformat="nvfp4")
    assert not list((tmp_path / "a").glob("checkpoint*"))


def test_damage_that_spoils_the_ranges_is_told_instead_of_them(
    make: Make, tiny_qwen3_moe: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_qwen3_moe, tmp_path / "damaged")
    name = damage(model, "embed_tokens", slice(None))
    with pytest.raises(AssertionError, match=re.escape(f"'{name}' holds NaN")):
        make(model, "a", layerwise=True, qformat="nvfp4")


def test_a_full_disk_is_told_whoever_meets_it(
    make: Make, tiny_qwen3_moe: Path, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(AssertionError, match=r"no space left.*disk-full"):
            make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "a").glob("checkpoint*"))


class _Slow:
    """A writer that interrupts the main thread when it writes its second tensor."""

    def __init__(self) -> None:
        self.written = 0

    def put(self, tensors: Iterable[object], *, here: bool) -> None:
        assert here
        for _ in tensors:
            self.written += 1
            if self.written == 2:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.05)


def test_what_is_written_beside_stops_when_the_run_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer: Any = _Slow()
    job: Any = SimpleNamespace(source=None, plan=None, recipe=SimpleNamespace(device="cpu"))
    monkeypatch.setattr(making, "unquantized", lambda *_: range(200))
    monkeypatch.setattr(making, "read_unquantized", lambda _, names: iter(names))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), making._copying_unquantized(job, writer):  # noqa: SLF001  # what is tested
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert writer.written < 200


def test_a_calibration_of_before_is_used_and_the_weights_are_read(
    make: Make, tiny_qwen3_moe: Path, tmp_path: Path, read_again: list[set[str]]
) -> None:
    first = make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4")
    (tmp_path / "a" / "checkpoint.json").unlink()
    assert make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4").sha256 == first.sha256
    assert read_again[0] == set()
    assert len(read_again[1]) > first.num_quantized
