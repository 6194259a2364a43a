"""Put the known faults back, one at a time, and see which stage of the pipeline catches each.

First come the correct runs: they must get GO, they measure the baseline, and theirs are the
checkpoints that faults of files spoil copies of.
"""

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import pipeline
from harness.artifacts import save, write_atomically
from harness.drill.attempt import Setting, attempt, message_of
from harness.drill.catalogue import find_format
from harness.drill.fault import Fault, Format
from harness.drill.nets import SWITCHABLE
from harness.drill.result import Correct, Drilled, DrillReport
from harness.drill.table import junit_xml, markdown
from harness.errors import RunDirectoryError
from harness.preflight import preflight
from harness.runs import exit_code, run_job

REPORT = "drill.json"
_log = logging.getLogger("harness.drill")


def drill(setting: Setting, faults: Sequence[Fault], formats: Sequence[Format]) -> DrillReport:
    """Run everything, and write the report after each part.

    Args:
        setting: where and how.
        faults: what is put back.
        formats: whose correct runs must get GO, besides those that a fault needs.

    Raises:
        RunDirectoryError: the folder holds something else.
        UsageError: a correct run cannot start, such as for want of an engine.
    """
    folder = setting.folder
    _refuse_other_folders(folder)
    wanted = dict.fromkeys([*formats, *(find_format(fault.format) for fault in faults)])
    report = DrillReport(engine=setting.engine, suite=setting.suite)
    with _quiet_runs():
        for form in wanted:
            _log.info("drill: correct %s", form.name)
            correct = _run_correct(setting, form)
            _log.info("drill: correct %s is %s", form.name, correct.decision or "no verdict")
            report = dataclasses.replace(report, correct=(*report.correct, correct))
            _keep(report, folder)
        for number, fault in enumerate(faults, start=1):
            _log.info("drill: %d of %d, %s", number, len(faults), fault.name)
            done = _put_back(setting, fault)
            _log.info("drill: %s caught by %s", fault.name, done.first.caught_by or "NOTHING")
            report = dataclasses.replace(report, drilled=(*report.drilled, done))
            _keep(report, folder)
    return _keep(dataclasses.replace(report, finished=True), folder)


def _run_correct(setting: Setting, form: Format) -> Correct:
    folder = _correct_folder(setting, form)
    job = preflight(setting.request(form), into=folder)
    _, record = run_job(job, into=folder, work=pipeline.release_gate)
    seconds = sum(s for name, s in record.stage_seconds.items() if name != pipeline.BASELINE.name)
    return Correct(
        format=form.name,
        decision=record.verdict.decision if record.verdict else None,
        exit_code=exit_code(record),
        message=message_of(record),
        seconds=round(seconds, 1),
        folder=str(folder),
    )


def _correct_folder(setting: Setting, form: Format) -> Path:
    return setting.folder / "correct" / form.name


def _put_back(setting: Setting, fault: Fault) -> Drilled:
    form = find_format(fault.format)
    folder = setting.folder / "faults" / fault.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
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


def _refuse_other_folders(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / REPORT).is_file():
        message = f"'{folder}' holds something else. Give --run-dir an empty folder or a drill's."
        raise RunDirectoryError(message)


def _keep(report: DrillReport, folder: Path) -> DrillReport:
    """Write what is known so far: a drill that breaks off keeps what it found out."""
    folder.mkdir(parents=True, exist_ok=True)
    save(report, folder / REPORT)
    write_atomically(folder / "drill.md", markdown(report))
    write_atomically(folder / "junit.xml", junit_xml(report))
    return report


@contextmanager
def _quiet_runs() -> Iterator[None]:
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
