"""A GPU's context is begun beside the imports, and what goes wrong there is said elsewhere."""

import threading

import pytest
import torch

from harness.preflight import devices, job
from harness.request import Request


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for what a GPU does; return the devices that were begun on."""
    found: list[str] = []

    def zeros(*_: int, dtype: torch.dtype, device: str) -> None:
        assert dtype is torch.bfloat16
        found.append(device)
        message = "out of memory"
        raise RuntimeError(message)

    monkeypatch.setattr(torch, "zeros", zeros)
    return found


def test_a_gpu_is_begun_on_and_its_error_left_to_whoever_uses_it(begun: list[str]) -> None:
    devices.begin_on("cuda:1")
    for thread in threading.enumerate():
        if thread.name == "context":
            thread.join()
    assert begun == ["cuda:1"]


def test_a_cpu_needs_no_beginning(begun: list[str]) -> None:
    devices.begin_on("cpu")
    assert begun == []


@pytest.mark.parametrize(("ranks", "expected"), [(1, ["cpu"]), (2, [])])
def test_a_run_of_one_process_begins_on_its_device(
    monkeypatch: pytest.MonkeyPatch, ranks: int, expected: list[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(job, "begin_on", seen.append)
    job.preflight(Request(model="canary", qformat="nvfp4", device="cpu", ranks=ranks), scored=False)
    assert seen == expected
