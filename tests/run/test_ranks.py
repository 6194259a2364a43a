"""Several processes make the checkpoint that one makes."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import distributed

from harness import pipeline
from harness import ranks as ranks_module
from harness.artifacts import RunRecord
from harness.errors import CorruptWeightError, ReasonCode, StageError, UsageError
from harness.preflight import preflight
from harness.ranks import ALONE, Ranks
from harness.recipe import Request
from harness.runs import run_job
from tests.tiers import slow

BOOM = KeyError("boom")
Make = Callable[..., RunRecord]
Together = Callable[[int, Callable[[Ranks], None]], AbstractContextManager[Ranks]]


def quantized(model: Path, data: Path, ranks: int, into: Path, **options: Any) -> RunRecord:  # noqa: ANN401 - of a request
    """Quantize a model layer by layer with some ranks.

    Those on `cuda:0` share it, whereas what is typed must leave each a GPU of its own.
    """
    asked: dict[str, Any] = {"calib_data": str(data), "calib_size": 12}
    asked |= {"calib_seq": 64, "device": "cpu", "qformat": "nvfp4", "layerwise": True}
    asked |= options
    typed = 1 if asked["device"] == "cuda:0" else ranks
    job = preflight(Request(model=str(model), ranks=typed, **asked), into=into, scored=False)
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, ranks=ranks))
    return run_job(job, into=into, work=pipeline.make_checkpoint)[1]


@pytest.fixture
@slow("every rank is a process that imports torch anew")
def together() -> Together:
    return ranks_module.together


@pytest.fixture
@slow("runs of several ranks, each a process that imports torch anew")
def make(calibration_jsonl: Path, tmp_path: Path) -> Make:
    """Return a function that does so into a folder called by the number of ranks."""

    def made(model: Path, ranks: int, **options: Any) -> RunRecord:  # noqa: ANN401 - of a request
        return quantized(model, calibration_jsonl, ranks, tmp_path / str(ranks), **options)

    return made


def reduce(ranks: Ranks) -> None:
    talk(ranks)


def talk(ranks: Ranks) -> tuple[list[float], list[int], list[Any]]:
    number = ranks.number
    return (
        ranks.all_max([float(number), -float(number)]),
        ranks.all_sum([number, 1]),
        ranks.all_gather({"number": number, "text": "x" * number * 1000}),
    )


def die(ranks: Ranks) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    talk(ranks)


def die_last(ranks: Ranks) -> None:
    if ranks.number == ranks.count - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    talk(ranks)


def find_a_fault_last(ranks: Ranks) -> None:
    if ranks.number == ranks.count - 1:
        find_a_fault(ranks)
    talk(ranks)


def compute(ranks: Ranks) -> None:
    """Answer once, and not again for a long time."""
    talk(ranks)
    while True:
        time.sleep(0.1)


def note_and_compute(ranks: Ranks) -> None:
    del ranks
    partial = Path(f"{os.environ['NOTE']}.partial")
    partial.write_text(str(os.getpid()))
    partial.rename(os.environ["NOTE"])
    while True:
        time.sleep(0.1)


def stumble(ranks: Ranks) -> None:
    del ranks
    raise BOOM


def vanish(*_: object) -> None:
    os._exit(3)


def dawdle(ranks: Ranks) -> None:
    time.sleep(3)
    ranks.all_sum([1])


def die_before_all_are_connected(*arguments: Any) -> None:  # noqa: ANN401 - of ranks._run
    arguments[3].send("ready")
    os.kill(os.getpid(), signal.SIGKILL)


def find_a_fault(ranks: Ranks) -> None:
    del ranks
    message = "'w' holds NaN"
    raise CorruptWeightError(message)


def test_ranks_tell_each_other_what_they_have(together: Together) -> None:
    with together(3, reduce) as ranks:
        largest, added, gathered = talk(ranks)
    assert largest == [2.0, 0.0]
    assert added == [3, 3]
    assert [(one["number"], len(one["text"])) for one in gathered] == [(0, 0), (1, 1000), (2, 2000)]


def test_each_item_is_somebodys() -> None:
    items = list(range(7))
    shares = [Ranks(number, 3).share(items) for number in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert [[Ranks(n, 3).owns(i) for i in items] for n in range(3)] == [
        [i in share for i in items] for share in shares
    ]
    assert ALONE.share(items) == items
    assert ALONE.all_max([1.5]) == [1.5]


def test_what_another_rank_raises_is_raised_here(together: Together) -> None:
    with pytest.raises(CorruptWeightError, match="'w' holds NaN"), together(2, find_a_fault) as me:
        talk(me)


def test_a_rank_that_is_killed_ends_the_others_with_one_line(together: Together) -> None:
    with (
        pytest.raises(StageError, match="rank 1 of 2 was killed by signal 9") as caught,
        together(2, die) as me,
    ):
        talk(me)
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY


def test_of_several_ranks_the_one_at_fault_is_named(together: Together) -> None:
    with (
        pytest.raises(CorruptWeightError, match="'w' holds NaN"),
        together(3, find_a_fault_last) as me,
    ):
        talk(me)
    killed = pytest.raises(StageError, match="rank 2 of 3 was killed by signal 9")
    with killed, together(3, die_last) as me:
        talk(me)


def test_an_interrupt_does_not_wait_for_a_slow_rank(together: Together) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def ask_in_vain(me: Ranks) -> None:
        talk(me)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        talk(me)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), together(3, compute) as me:
            ask_in_vain(me)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("together")
def test_a_rank_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "from harness.ranks import together\n"
        "from tests.run.test_ranks import note_and_compute\n"
        "if __name__ == '__main__':\n"
        f"    with together(2, note_and_compute):\n"
        f"        while not os.path.exists({str(tmp_path / 'pid')!r}):\n"
        "            time.sleep(0.05)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "NOTE": str(tmp_path / "pid")}
    subprocess.run([sys.executable, str(script)], check=False, env=environment)
    rank = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(rank) and psutil.Process(rank).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)


def test_a_bug_in_another_rank_is_a_bug(together: Together) -> None:
    bug = pytest.raises(RuntimeError, match=r"a bug in rank 1 of 2:[\s\S]*KeyError: 'boom'")
    with bug, together(2, stumble) as me:
        talk(me)


def test_a_rank_that_dies_before_it_joins_is_not_waited_for(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ranks._run", vanish)
    with pytest.raises(RuntimeError, match="a rank ended with 3"), together(2, reduce):
        pass


def test_a_rank_that_dies_while_all_connect_leaves_no_process_group_behind(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ranks._run", die_before_all_are_connected)
    monkeypatch.setattr("harness.ranks._MEETING", timedelta(seconds=2))
    with pytest.raises(StageError, match="rank 1 of 2 was killed by signal 9"), together(2, reduce):
        pass
    assert not distributed.is_initialized()
    monkeypatch.undo()
    with together(2, reduce) as ranks:
        assert talk(ranks)[1] == [1, 2]


def test_a_slow_rank_is_waited_for_once_all_are_connected(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ranks._MEETING", timedelta(seconds=2))
    with together(2, dawdle) as ranks:
        assert ranks.all_sum([1]) == [2]


def test_an_error_of_this_rank_ends_the_others(together: Together) -> None:
    with pytest.raises(KeyError, match="boom"), together(2, reduce):
        raise BOOM


@pytest.mark.parametrize("family", ["qwen3_5_moe", "mixtral"])
def test_two_ranks_write_what_one_writes(
    tiny_models: dict[str, Path], make: Make, tmp_path: Path, family: str
) -> None:
    alone = make(tiny_models[family], 1, kv_cache="fp8")
    both = make(tiny_models[family], 2, kv_cache="fp8")
    assert both.failure is None
    assert both.checkpoint is not None
    assert alone.checkpoint is not None
    assert both.checkpoint.sha256 == alone.checkpoint.sha256
    for name in ("calibration.safetensors",):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert both.stats == alone.stats


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("first", [1, 2])
def test_processes_on_a_gpu_write_the_same_whoever_tunes_its_kernels(
    tiny_qwen3_5_moe: Path, calibration_jsonl: Path, tmp_path: Path, first: int
) -> None:
    """Each run is a process of its own, as it is for a user: kernels may be tuned only once."""
    model, data = str(tiny_qwen3_5_moe), str(calibration_jsonl)
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.run.test_ranks import quantized\n"
        "if __name__ == '__main__':\n"
        "    ranks, into = int(sys.argv[1]), Path(sys.argv[2])\n"
        f"    made = quantized(Path({model!r}), Path({data!r}), ranks, into, device='cuda:0')\n"
        "    assert made.failure is None, made.failure\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    for ranks in (first, 3 - first):
        command = [sys.executable, str(script), str(ranks), str(tmp_path / str(ranks))]
        subprocess.run(command, check=True, env=environment)
    files = [tmp_path / str(ranks) / "checkpoint/model.safetensors" for ranks in (1, 2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_ranks_need_layers(tiny_qwen3: Path, calibration_jsonl: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--ranks 2: .* Type --layerwise"):
        quantized(tiny_qwen3, calibration_jsonl, 2, tmp_path, layerwise=False)
