"""Cells on a Ray cluster: a job each, through Ray's job API, with the GPUs that it asks for.

A job whose machine or worker is gone is submitted again and continues in its run directory; what
may be tried again after a failure is `harness nightly`'s own business. Jobs of an earlier command
that still run are waited for, and no cell runs twice at a time. Whoever is told to end stops them.
"""

import hashlib
import logging
import shlex
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, PrerequisiteError, ReasonCode, StageError

_log = logging.getLogger("harness.nightly")
_LOOK_S = 2.0
_UNREACHABLE_S = 300.0
"""In which a head that cannot be reached must have come back."""
_SETTLED_S = 5.0
"""In which Ray's watcher has ended the process of a worker that is gone."""
_STOPPED_S = 90.0
"""In which a job that is stopped has cleaned up."""
_MOST_LOST = 5
_A_LITTLE = 0.001
"""Of a resource that says what a machine has, and is not used up."""
_KEY = "harness-cell"
_TOLD_TO_END = {int(code) for code in (ExitCode.SIGHUP, ExitCode.SIGINT, ExitCode.SIGTERM)}
_KILLED = 137
_NOT_STARTED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayWork:
    """One cell as Ray sees it."""

    cell: str
    command: tuple[str, ...]
    folder: Path
    """In which it is typed."""
    gpus: int = 0
    hardware: str | None = None
    """Ray's name of the GPU's type, such as `H200`; None for any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayEnding:
    """How the job of a cell ended."""

    exit_code: int | None
    """None where it did not come to an end of its own."""
    message: str
    """Why there is no exit code."""
    node: str
    """Ray's name of the machine that it ran on last."""
    num_lost: int
    """How often its worker or machine was gone."""


@dataclass(kw_only=True, slots=True)
class _Job:
    work: RayWork
    key: str
    """Of the cell in this night, in the job's metadata."""
    submission: str = ""
    num_lost: int = 0
    again_at: float | None = None
    """When it is submitted, on the monotonic clock; None while it is."""
    ending: RayEnding | None = None


@dataclass(kw_only=True, slots=True)
class _Cluster:
    """Ray's job API, patient with a head that is away for a while."""

    client: Any
    address: str
    away_since: float | None = field(default=None)

    def ask(self, what: str, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - of Ray's client
        """Return what the head answers; None where it cannot be reached at the moment.

        Raises:
            StageError: it could not be reached for too long.
        """
        try:
            answer = getattr(self.client, what)(*arguments, **more)
        except (OSError, RuntimeError) as error:
            now = time.monotonic()
            self.away_since = self.away_since or now
            if now - self.away_since < _UNREACHABLE_S:
                return None
            message = (
                f"Ray's job API at '{self.address}' cannot be reached any more: {_line(error)}. "
                "Its jobs go on; type the command again to wait for them."
            )
            raise StageError(message, reason=ReasonCode.SYSTEM_REFUSED) from error
        self.away_since = None
        return answer


def run_on_ray(address: str, works: Sequence[RayWork], night: str) -> Mapping[str, RayEnding]:
    """Run every cell as a job of Ray, and return how each ended.

    Args:
        address: of the job API, such as `http://127.0.0.1:8265`.
        works: the cells.
        night: what all of them belong to; the same text for the same matrix, folder and night.

    Raises:
        PrerequisiteError: Ray is not installed, or nothing answers at the address.
        StageError: the head went away and did not come back.
    """
    cluster = _Cluster(client=_connect(address), address=address)
    jobs = [_Job(work=work, key=_key_of(night, work.cell), again_at=0.0) for work in works]
    try:
        _adopt(cluster, jobs)
        while any(job.ending is None for job in jobs):
            for job in jobs:
                if job.ending is None:
                    _look(cluster, job, others=jobs)
            time.sleep(_LOOK_S)
    except BaseException:
        _stop(cluster, jobs)
        raise
    return {job.work.cell: job.ending for job in jobs if job.ending is not None}


def _connect(address: str) -> Any:  # noqa: ANN401 - of Ray
    try:
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "--ray needs Ray. Type: pip install 'harness-ptq-gate[ray]'"
        raise PrerequisiteError(message) from error
    try:
        return JobSubmissionClient(address)
    except (OSError, RuntimeError, ValueError) as error:
        message = (
            f"--ray {address}: no job API of Ray answers there ({_line(error)}). Name the head's "
            "dashboard, such as http://127.0.0.1:8265."
        )
        raise PrerequisiteError(message) from error


def _adopt(cluster: _Cluster, jobs: Sequence[_Job]) -> None:
    """Take over the jobs of an earlier command that have not ended."""
    running = {
        one.metadata[_KEY]: one.submission_id
        for one in cluster.ask("list_jobs") or ()
        if one.submission_id and _KEY in (one.metadata or {}) and not one.status.is_terminal()
    }
    for job in jobs:
        if job.key in running:
            job.submission, job.again_at = running[job.key], None
            _log.info("nightly: %s runs already, as job %s", job.work.cell, job.submission)


def _look(cluster: _Cluster, job: _Job, *, others: Sequence[_Job]) -> None:
    """Submit a job, or see how far it is."""
    if job.again_at is not None:
        if time.monotonic() >= job.again_at:
            _submit(cluster, job)
        return
    found = cluster.ask("get_job_info", job.submission)
    if found is None or not found.status.is_terminal():
        return
    node = found.driver_node_id or ""
    code = 0 if found.status == "SUCCEEDED" else found.driver_exit_code
    said = _line(found.message or str(found.status))
    if found.status == "STOPPED":
        _end(job, code=None, message=f"somebody stopped its job {job.submission}", node=node)
    elif found.error_type == _NOT_STARTED and any(_is_at_work(cluster, one) for one in others):
        job.again_at = time.monotonic()  # the machines are busy with our own
    elif found.error_type == _NOT_STARTED:
        _end(
            job, code=None, message=f"no machine of the cluster has room for it: {said}", node=node
        )
    elif code is None or code < 0 or code == _KILLED or code in _TOLD_TO_END:
        _lose(job, f"ended with {code}" if code is not None else said, node)
    else:
        _end(job, code=code, message="", node=node)


def _is_at_work(cluster: _Cluster, job: _Job) -> bool:
    if job.ending is not None or job.again_at is not None:
        return False
    found = cluster.ask("get_job_info", job.submission)
    return found is not None and found.status == "RUNNING"


def _submit(cluster: _Cluster, job: _Job) -> None:
    name = f"harness-{uuid.uuid4().hex}"
    known = {"submission_id": name, "metadata": {_KEY: job.key, "cell": job.work.cell}}
    # A core, so that any machine may get it: without needs all would run on the head.
    needs: dict[str, Any] = {"entrypoint_num_cpus": 1}
    if job.work.gpus:
        needs["entrypoint_num_gpus"] = job.work.gpus
    if job.work.hardware is not None:
        needs["entrypoint_resources"] = {f"accelerator_type:{job.work.hardware}": _A_LITTLE}
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(int(_STOPPED_S) - 30)}
    submitted = cluster.ask(
        "submit_job",
        entrypoint=f"cd {shlex.quote(str(job.work.folder))} && exec {shlex.join(job.work.command)}",
        runtime_env={"env_vars": variables},
        **known,
        **needs,
    )
    if submitted is None:  # the answer may be lost and the job there: no second one beside it
        listed = cluster.ask("list_jobs") or ()
        if name not in {one.submission_id for one in listed}:
            return
    job.submission, job.again_at = name, None
    _log.info("nightly: %s is job %s", job.work.cell, name)


def _lose(job: _Job, why: str, node: str) -> None:
    job.num_lost += 1
    if job.num_lost > _MOST_LOST:
        message = f"its worker or machine was gone {job.num_lost} times, the last time: {why}"
        _end(job, code=None, message=message, node=node)
        return
    _log.warning("nightly: %s lost its worker on node %s (%s); again", job.work.cell, node, why)
    job.again_at = time.monotonic() + _SETTLED_S


def _end(job: _Job, *, code: int | None, message: str, node: str) -> None:
    job.ending = RayEnding(exit_code=code, message=message, node=node, num_lost=job.num_lost)
    how = message or f"ended with {code}"
    _log.info("nightly: %s %s", job.work.cell, how)


def _stop(cluster: _Cluster, jobs: Sequence[_Job]) -> None:
    """Stop what runs, and return when it has ended."""
    waiting = [job for job in jobs if job.ending is None and job.submission and not job.again_at]
    for job in waiting:
        _ask_once(cluster, "stop_job", job.submission)
    until = time.monotonic() + _STOPPED_S
    while waiting and time.monotonic() < until:
        time.sleep(_LOOK_S / 4)
        found = [(job, _ask_once(cluster, "get_job_info", job.submission)) for job in waiting]
        waiting = [job for job, one in found if one is not None and not one.status.is_terminal()]
    for job in waiting:
        _log.warning("nightly: job %s of %s did not stop", job.submission, job.work.cell)


def _ask_once(cluster: _Cluster, what: str, submission: str) -> Any:  # noqa: ANN401 - as above
    try:
        return getattr(cluster.client, what)(submission)
    except (OSError, RuntimeError) as error:
        _log.warning("nightly: Ray does not answer for job %s: %s", submission, _line(error))
        return None


def _key_of(night: str, cell: str) -> str:
    return hashlib.sha256(f"{night}\n{cell}".encode()).hexdigest()


def _line(text: object) -> str:
    """Return the first line of what Ray said, which may be a page."""
    lines = str(text).strip().splitlines() or [""]
    return lines[0][:300]
