"""A checkpoint of a tiny model, made as a command makes it."""

from pathlib import Path

from harness import pipeline
from harness.preflight import preflight
from harness.recipe import Request
from harness.runs import run_job


def quantized(model: Path, qformat: str, data: Path, into: Path) -> Path:
    """Make a checkpoint, verify included, and return its folder."""
    request = Request(
        model=str(model),
        qformat=qformat,
        calib_data=str(data),
        calib_size=8,
        calib_seq=64,
        device="cpu",
    )
    job = preflight(request, into=into, scored=False)
    _, record = run_job(job, into=into, work=pipeline.make_checkpoint)
    assert record.failure is None, record.failure
    return into / "checkpoint"
