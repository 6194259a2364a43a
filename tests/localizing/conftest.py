"""A run of a tiny model up to its files, and hands to make it wrong in one place."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import pipeline
from harness.artifacts import CalibrationStats, Passage, made_from
from harness.calibrate import read_stats, write_stats
from harness.export import export
from harness.localizing import case
from harness.preflight import Job, preflight
from harness.quantize import quantize
from harness.recipe import Request, load_smoke
from harness.runs import run_job
from harness.stages import CALIBRATE
from tests.tiers import slow

PASSAGES = (
    Passage(id="fox", text="the quick brown fox jumps over the lazy dog"),
    Passage(id="sphinx", text="sphinx of black quartz, judge my vow; 0123456789"),
)


@dataclass(frozen=True)
class Made:
    """A run directory, and the job that it is of."""

    path: Path
    job: Job

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def stats(self) -> CalibrationStats:
        return read_stats(self.path / CALIBRATE.file)

    def record(self, stats: CalibrationStats) -> None:
        """Let the run have recorded other ranges."""
        file = self.path / CALIBRATE.file
        write_stats(stats, file, made_from(file) or {})

    def export(self, stats: CalibrationStats) -> None:
        """Make the files anew of other ranges."""
        shutil.rmtree(self.checkpoint)
        tensors = quantize(self.job.source, self.job.plan, stats)
        export(self.job.source, self.job.plan, tensors, into=self.checkpoint)

    def change(self, change: Callable[[dict[str, Tensor]], None]) -> None:
        """Change tensors of the files, behind the back of all that is recorded of them."""
        file = self.checkpoint / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        file.unlink()
        save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short passages: a tiny model of random weights says as much of them as of fifteen."""
    few = replace(load_smoke("general"), passages=PASSAGES)
    monkeypatch.setattr(case, "load_smoke", lambda _: few)


@pytest.fixture(scope="session")
def right(
    tiny_qwen3_moe: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """A correct run up to its checked files."""
    return _run(tiny_qwen3_moe, calibration_jsonl, tmp_path_factory.mktemp("right") / "run")


def _run(model: Path, data: Path, into: Path, qformat: str = "nvfp4") -> Made:
    request = Request(
        model=str(model),
        qformat=qformat,
        calib_data=str(data),
        calib_size=12,
        calib_seq=64,
        engine="reference",
        suite="smoke",
        device="cpu",
    )
    job = preflight(request, into=into, scored=False)
    job = replace(job, recipe=replace(job.recipe, suite=replace(job.recipe.suite, smoke=None)))
    _, record = run_job(job, into=into, work=pipeline.make_checkpoint)
    assert record.failure is None, record.failure
    return Made(into, job)


@pytest.fixture
@slow("the whole chain from source to files is run again for each fault")
def run(right: Made, tmp_path: Path) -> Made:
    """A copy of it that may be made wrong."""
    shutil.copytree(right.path, tmp_path / "run")
    return replace(right, path=tmp_path / "run")
