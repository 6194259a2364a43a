"""Put the known faults back, one at a time, and record which stage of the pipeline catches each.

The correct runs come first: they must get GO, they measure the baseline, and faults of files
damage copies of their checkpoints.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from harness import pipeline
from harness.artifacts import load, made_from, save, write_atomically
from harness.cores import num_cores
from harness.doors import check_folder, make_anew
from harness.drill.attempt import DrillSetting, attempt, message_of
from harness.drill.catalogue import find_fault, find_format
from harness.drill.defenses import SWITCHABLE
from harness.drill.fault import DrillFormat
from harness.drill.result import Correct, Drilled, DrillReport
from harness.drill.table import junit_xml, markdown
from harness.errors import ExitCode, RunDirectoryError
from harness.preflight import preflight
from harness.processes import each
from harness.runs import exit_code, run_job
from harness.stages import BASELINE

REPORT = "drill.json"
_log = logging.getLogger("harness.drill")
_FEWER_JOBS = "Give fewer --jobs and type the command again: what was done is kept."


def drill(
    setting: DrillSetting,
    faults: Sequence[str],
    formats: Sequence[str],
    *,
    jobs: int = 1,
    fresh: bool = False,
) -> DrillReport:
    """Run everything, and write the report after each part.

    A drill that broke off goes on where it was; one that was finished begins anew. Its correct runs
    are runs like any other: what they have finished is found again.

    Args:
        setting: where and how.
        faults: names of what is put back.
        formats: names of those whose correct runs must get GO, besides those that a fault needs.
        jobs: how many runs at a time, each in a process of its own.
        fresh: whether to forget what the folder holds, correct runs included.

    Raises:
        UsageError: a fault or a format is not known, or a correct run cannot start, such as for
            want of an engine.
        RunDirectoryError: the folder holds something else.
    """
    order = [fault.name for fault in map(find_fault, faults)]
    refuse_other_folders(setting.folder, REPORT)
    known = () if fresh else _done_before(setting)
    done = [one for one in known if one.fault in order]
    left = [name for name in order if name not in {one.fault for one in done}]
    if done:
        _log.info("drill: goes on, %d of %d faults were done before", len(done), len(order))
    report = DrillReport(engine=setting.engine, suite=setting.suite, drilled=tuple(done))
    _keep(report, setting)
    wanted = list(dict.fromkeys([*formats, *(find_fault(name).format for name in order)]))
    take_share = partial(_take_share, jobs)
    with quiet_runs():
        # The first measures the baseline, which the others find.
        for part, at_once in ((wanted[:1], 1), (wanted[1:], jobs)):
            run = partial(_run_correct, setting, fresh=fresh)
            for correct in each(run, part, jobs=at_once, begin=take_share, advice=_FEWER_JOBS):
                _log.info("drill: correct %s: %s", correct.format, correct.decision or "no verdict")
                report = _keep(report.plus(correct, order=wanted), setting)
        put_back = partial(_put_back, setting)
        for one in each(put_back, left, jobs=jobs, begin=take_share, advice=_FEWER_JOBS):
            report = _keep(report.plus(one, order=order), setting)
            caught = one.first.caught_by or "NOTHING"
            _log.info("drill: %d of %d, %s: %s", len(report.drilled), len(order), one.fault, caught)
    return _keep(dataclasses.replace(report, finished=True), setting)


def _take_share(jobs: int) -> None:
    """Let this process use its share of the cores."""
    torch.set_num_threads(max(1, num_cores() // jobs))


def _done_before(setting: DrillSetting) -> tuple[Drilled, ...]:
    """Return the faults that a drill with the same setting caught here before it broke off.

    What was not caught is tried again: it may have ended for want of space or memory.
    """
    path = setting.folder / REPORT
    if made_from(path) != {"setting": setting.digest}:
        return ()
    report = load(DrillReport, path)
    caught = (one for one in report.drilled if one.exit_code is ExitCode.GO)
    return () if report.finished else tuple(caught)


def _run_correct(setting: DrillSetting, name: str, *, fresh: bool) -> Correct:
    form = find_format(name)
    folder = _correct_folder(setting, form)
    job = preflight(setting.request(form), into=folder)
    _, record = run_job(job, into=folder, fresh=fresh, work=pipeline.release_gate)
    seconds = sum(s for name, s in record.stage_seconds.items() if name != BASELINE.name)
    return Correct(
        format=form.name,
        decision=record.verdict.decision if record.verdict else None,
        exit_code=exit_code(record),
        message=message_of(record),
        seconds=round(seconds, 1),
        folder=str(folder),
    )


def _correct_folder(setting: DrillSetting, form: DrillFormat) -> Path:
    return setting.folder / "correct" / form.name


def _put_back(setting: DrillSetting, name: str) -> Drilled:
    fault = find_fault(name)
    form = find_format(fault.format)
    folder = setting.folder / "faults" / fault.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_anew(folder)
    correct = _correct_folder(setting, form)
    first = attempt(setting, fault, correct, folder / "first", off=None)
    second = None
    if first.caught_by in SWITCHABLE:
        second = attempt(setting, fault, correct, folder / "second", off=first.caught_by)
    return Drilled(
        fault=fault.name,
        incident=fault.incident,
        what=fault.what,
        kind=fault.kind,
        format=fault.format,
        first=first,
        second=second,
        folder=str(folder),
    )


def refuse_other_folders(folder: Path, report: str) -> None:
    """Refuse a folder that holds something else than a drill which writes the file `report`.

    Raises:
        RunDirectoryError: it does.
        UsageError: it is no folder, or cannot be written to.
    """
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / report).is_file():
        message = f"'{folder}' holds something else. Give --run-dir an empty folder or a drill's."
        raise RunDirectoryError(message)


def _keep(report: DrillReport, setting: DrillSetting) -> DrillReport:
    """Write what is known so far: a drill that breaks off keeps what it found out."""
    folder = setting.folder
    folder.mkdir(parents=True, exist_ok=True)
    save(report, folder / REPORT, made_from={"setting": setting.digest})
    write_atomically(folder / "drill.md", markdown(report))
    write_atomically(folder / "junit.xml", junit_xml(report))
    return report


@contextmanager
def quiet_runs() -> Iterator[None]:
    """Leave the progress of the runs out: theirs would be thousands of lines."""
    runs = logging.getLogger("harness")
    level = runs.level
    _log.setLevel(runs.getEffectiveLevel())
    runs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        runs.setLevel(level)
        _log.setLevel(logging.NOTSET)
