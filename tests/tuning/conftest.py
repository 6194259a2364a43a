"""A tuning that is ready to start, of tiny models."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.request import Request
from harness.tuning import Goal, wanted
from harness.tuning.work import Work, prepared
from tests.small_suite import write_small_suite

Prepare = Callable[..., Work]


@pytest.fixture(scope="session")
def small_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(autouse=True)
def _few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frontier stepped over in few steps: each point takes the solver its time."""
    monkeypatch.setattr("harness.tuning.choosing.MOST_POINTS", 8)


@pytest.fixture
def prepare(small_suite: Path, calibration_jsonl: Path, tmp_path: Path) -> Prepare:
    """Check what was typed about a model, in a folder of its own."""

    def make(
        model: Path,
        *,
        bits: float | None = None,
        formats: str = "nvfp4,fp8,none",
        algorithm: str = "",
        tokens: int = 128,
    ) -> Work:
        request = Request(
            model=str(model),
            calib_data=str(calibration_jsonl),
            calib_size=12,
            calib_seq=64,
            suite=str(small_suite),
            engine="reference",
            device="cpu",
        )
        goal = Goal(bits, None)
        if bits is None:
            goal, request = Goal(None, str(small_suite)), replace(request, suite=None)
        return prepared(wanted(request, goal, formats, algorithm, tokens), tmp_path / "tuning")

    return make
