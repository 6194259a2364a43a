"""A model that is run layer by layer is quantized while it is in memory: same files."""

import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import making, pipeline
from harness.artifacts import Checkpoint, QuantizedTensor
from harness.calibrate import forward
from harness.preflight import preflight
from harness.quantize import quantize
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
_CASES = [*product(_FAMILIES, _FORMATS), ("qwen3_moe", ("w4a16_nvfp4", "none"))]


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


class _Stack:
    """Stands in for what a GPU has computed of a layer."""

    def __init__(self, layer: object) -> None:
        self.layer = layer

    def fetch(self) -> Iterator[object]:
        yield self.layer


class _OnAGpu:
    """Stands in for what quantizes on a GPU; and for the draft, which takes what is fetched."""

    def __init__(self, fails_at: object = None) -> None:
        self.fails_at = fails_at
        self.seen: list[tuple[str, object, bool]] = []

    def _see(self, what: str, layer: object) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        self.seen.append((what, layer, is_main))
        if layer is not None and layer == self.fails_at:
            raise OSError(28, "No space left on device")

    def prepare(self, _: object) -> None:
        self._see("prepare", "")

    def quantize(self, layer: object, _: object) -> list[_Stack]:
        self._see("quantize", None)
        return [_Stack(layer)]

    def put(self, layer: object) -> None:
        time.sleep(0.02)
        self._see("put", layer)


def quantize_layers(
    monkeypatch: pytest.MonkeyPatch, gpu: _OnAGpu, layers: list[str]
) -> list[tuple[str, object, bool]]:
    made: Any = making
    monkeypatch.setattr(made, "ResidentQuantizer", lambda _: gpu)
    monkeypatch.setattr(
        made, "threads_for", lambda _, number, name: ThreadPoolExecutor(number, name)
    )
    job: Any = SimpleNamespace(plan=None, recipe=SimpleNamespace(device="cuda"))
    with made._quantizing(job, gpu) as on_weights:  # noqa: SLF001  # what is tested
        for layer in layers:
            on_weights(layer, {})
    return gpu.seen


def test_a_thread_writes_what_a_gpu_computed_while_the_next_layer_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = quantize_layers(monkeypatch, _OnAGpu(), ["first", "second"])
    assert seen == [
        ("prepare", "", False),
        ("quantize", None, True),
        ("put", "first", False),
        ("quantize", None, True),
        ("put", "second", False),
    ]


@pytest.mark.parametrize("fails_at", ["", "first", "second"])
def test_what_that_thread_could_not_do_ends_the_calibration(
    monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    gpu = _OnAGpu(fails_at)
    with pytest.raises(OSError, match="No space left"):
        quantize_layers(monkeypatch, gpu, ["first", "second"])
    assert gpu.seen[-1][1] == fails_at


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
    weights = load_file(model / "model.safetensors")
    (name, *_) = (key for key in weights if "visual" in key)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssertionError, match=re.escape(f"'{name}' holds NaN")):
        make(model, "a", layerwise=True, qformat="nvfp4")
    assert not list((tmp_path / "a").glob("checkpoint*"))


def test_damage_that_spoils_the_ranges_is_told_instead_of_them(
    make: Make, tiny_qwen3_moe: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_qwen3_moe, tmp_path / "damaged")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"].view(-1)[:] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssertionError, match=r"'model.embed_tokens.weight' holds NaN"):
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
    """A draft that interrupts the main thread when it writes its second tensor."""

    def __init__(self) -> None:
        self.written = 0

    def begin(self) -> None:
        pass

    def write(self, _: object) -> None:
        self.written += 1
        if self.written == 2:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.05)


def test_what_is_written_beside_stops_when_the_run_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draft: Any = _Slow()
    job: Any = SimpleNamespace(source=None, plan=None, recipe=SimpleNamespace(device="cpu"))
    monkeypatch.setattr(making, "untouched", lambda *_: range(200))
    monkeypatch.setattr(making, "as_they_are", lambda _, names: iter(names))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), making._writing_untouched(job, draft):  # noqa: SLF001  # what is tested
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert draft.written < 200


def test_a_calibration_of_before_is_used_and_the_weights_are_read(
    make: Make, tiny_qwen3_moe: Path, tmp_path: Path, read_again: list[set[str]]
) -> None:
    first = make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4")
    (tmp_path / "a" / "checkpoint.json").unlink()
    assert make(tiny_qwen3_moe, "a", layerwise=True, qformat="nvfp4").sha256 == first.sha256
    assert read_again[0] == set()
    assert len(read_again[1]) > first.num_quantized
