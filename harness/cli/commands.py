"""What each command does: one call into the pipeline or a room, and the text that is printed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness import pipeline, runs
from harness.artifacts import RunRecord, to_json
from harness.cli import several, text
from harness.cli.console import Result
from harness.doors import check_apart
from harness.errors import ExitCode, PrerequisiteError, ReasonCode, StageError
from harness.models import believe_no_cache
from harness.nodes import Launch, launched
from harness.preflight import preflight, preflight_gate, summarize, summarize_gate
from harness.recipe import Request
from harness.report import REPORT_FILES, terminal_table, write_report
from harness.verify import ReadingAhead


def set_paranoid(*, on: bool) -> None:
    """Believe no hash that was remembered earlier, if asked for."""
    if on:
        believe_no_cache()


def plan(request: Request, run_dir: Path | None, *, scored: bool = True) -> Result:
    """Resolve, check and estimate."""
    with found_by_a_plan():
        summary = summarize(preflight(request, into=run_dir, scored=scored), scored=scored)
    return Result(text=text.of_plan(summary), values=to_json(summary))


@contextmanager
def found_by_a_plan() -> Iterator[None]:
    """Turn what would end a stage into what it is while nothing runs: something to change first."""
    try:
        yield
    except StageError as error:
        raise PrerequisiteError(str(error), reason=error.reason) from error


def e2e(request: Request, run_dir: Path | None, *, fresh: bool) -> Result:
    """Run everything."""
    check_run_apart(run_dir, request.model, request.baseline)
    with runs.refusals_reported(run_dir):
        job = preflight(request, into=run_dir)
    path, record = runs.run_job(job, into=run_dir, fresh=fresh, work=pipeline.release_gate)
    return ended(path, record)


def gate(
    request: Request, checkpoint: Path, ahead: ReadingAhead, run_dir: Path | None, *, fresh: bool
) -> Result:
    """Judge a checkpoint that was made elsewhere, whose files `ahead` has begun to read."""
    check_run_apart(run_dir, str(checkpoint), request.model)
    with runs.refusals_reported(run_dir):
        job = preflight_gate(request, checkpoint, into=run_dir)
    work = partial(pipeline.foreign_gate, ahead=ahead)
    path, record = runs.run_job(job, into=run_dir, fresh=fresh, work=work)
    return ended(path, record)


def check_run_apart(run_dir: Path | None, *read: str | None) -> None:
    """Refuse a run directory in or around a folder that is read, before a word is written to it."""
    if run_dir is not None:
        check_apart(run_dir, [Path(name) for name in read if name and Path(name).is_dir()])


def plan_gate(request: Request, checkpoint: Path, run_dir: Path | None) -> Result:
    """Resolve and check a gate, and say what it can decide."""
    with found_by_a_plan():
        summary = summarize_gate(preflight_gate(request, checkpoint, into=run_dir))
    return Result(text=text.of_gate_plan(summary), values=to_json(summary))


def quantize(request: Request, out: Path, *, fresh: bool) -> Result:
    """Make and verify a checkpoint."""
    if (launch := launched()) is not None:
        made = several.quantize(launch, request, out, fresh=fresh)
        return ended(*made) if made is not None else helped(launch)
    with runs.refusals_reported(out):
        job = preflight(request, into=out, scored=False)
    path, record = runs.run_job(job, into=out, fresh=fresh, work=pipeline.make_checkpoint)
    return ended(path, record)


def helped(launch: Launch) -> Result:
    """Say that this process of torchrun has done its share."""
    line = f"process {launch.number} of {launch.count} has done its share"
    return Result(text=line, values={"process": launch.number, "of": launch.count})


def ended(path: Path, record: RunRecord) -> Result:
    """Say how a run ended."""
    table = terminal_table(record.verdict) if record.verdict else ""
    code = runs.exit_code(record)
    return Result(
        text=text.of_ending(path, record, table),
        values=text.summary_of(path, record, int(code)),
        exit_code=code,
    )


def report(run_dir: Path) -> Result:
    """Write the reports again."""
    record = runs.read_run(run_dir)
    write_report(record, into=run_dir)
    files = [str(run_dir / name) for name in REPORT_FILES]
    failure = record.failure
    if failure is None or failure.reason_code is not ReasonCode.EVIDENCE_CHANGED:
        return Result(text="\n".join(files), values={"files": files})
    return Result(
        text="\n".join([f"{run_dir}: {failure.message}", *files]),
        values={"files": files, "failure": to_json(failure)},
        exit_code=failure.exit_code,
    )


def status(run_dir: Path) -> Result:
    """Say how far a run is."""
    states = runs.status_of(run_dir)
    code = ExitCode.USAGE if states.changed else ExitCode.GO
    return Result(text=text.of_status(run_dir, states), values=to_json(states), exit_code=code)
