"""`harness quantize` started by `torchrun`: the first process does the run, the others help."""

import dataclasses
import os
from pathlib import Path

from harness import making, pipeline, runs
from harness.artifacts import RunRecord
from harness.errors import HarnessError, UsageError
from harness.models import tunes_itself
from harness.nodes import Launch, Node, joined
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory
from harness.stages import CHECKPOINT_FOLDER

_TUNED = "TRITON_CACHE_DIR"


def quantize(
    launch: Launch, request: Request, out: Path, *, fresh: bool
) -> tuple[Path, RunRecord] | None:
    """Make and verify a checkpoint; None for a process that has helped.

    Raises:
        HarnessError: this process, or another one, could not prepare it.
        StageError: another process is gone.
    """
    request = _with_ranks(request, launch)
    with joined(launch) as node:
        if launch.number == 0:
            return _lead(node, request, out, fresh=fresh)
        job = _agreed(node, request, out)
        into = out / CHECKPOINT_FOLDER
        node.help(lambda ranks: making.help_make(job, into, ranks))
        return None


def _lead(node: Node, request: Request, out: Path, *, fresh: bool) -> tuple[Path, RunRecord]:
    with runs.refusals_reported(out):
        job = _agreed(node, request, out)

    def work(job: Job, run: RunDirectory) -> None:
        with node.hearing_of_failures():
            pipeline.make_checkpoint(job, run)

    path, record = runs.run_job(job, into=out, fresh=fresh, work=work)
    if record.failure is None:
        node.dismiss()
    else:
        node.leave(record.failure.message, record.failure.reason_code)
    return path, record


def _agreed(node: Node, request: Request, out: Path) -> Job:
    """Prepare the work, and make sure that all others have prepared the same."""
    job, refused = None, None
    try:
        job = preflight(request, into=out, scored=False)
    except HarnessError as error:
        refused = error
    num_machines = node.agree({} if job is None else making.what_is_made(job), refused)
    assert job is not None  # noqa: S101 - else agree has raised
    if num_machines > 1 and tunes_itself(job.recipe.device) and _TUNED not in os.environ:
        message = (
            f"{_TUNED} is not set: kernels that tune themselves would not be the same on every "
            "machine. Set it to a folder that all machines share."
        )
        raise UsageError(message)
    return job


def _with_ranks(request: Request, launch: Launch) -> Request:
    if request.ranks not in (1, launch.count):
        message = (
            f"--ranks {request.ranks}: torchrun has started {launch.count} processes. Leave it out."
        )
        raise UsageError(message)
    if request.layerwise is False:
        message = (
            "--whole: processes of torchrun share a model that is run layer by layer. Leave it out."
        )
        raise UsageError(message)
    return dataclasses.replace(request, ranks=launch.count, layerwise=True)
