"""Copies of a finished run to tamper with; the same commands are then typed again in them.

Files are changed from outside, as another process, a tool or a person would. One thing in harness
is replaced: between two stages a function of the attack is called.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import pipeline
from harness.artifacts import Decision, MadeFrom, RunRecord
from harness.artifacts.store import RECORD_SHA256, digest_of_record
from harness.drill.attempt import DrillSetting, message_of
from harness.drill.catalogue import find_fault, find_format
from harness.drill.fault import FileFault
from harness.drill.making import exchanged
from harness.drill.tampering import tampering
from harness.errors import ExitCode, HarnessError
from harness.preflight import preflight, preflight_gate
from harness.rundir import RunDirectory, Stage
from harness.runs import exit_code, read_run, refusals_reported, run_job, status_of
from harness.stages import CHECKPOINT_FOLDER

FORMAT = "nvfp4"
BAD = "expert-input-scales-tiny"
"""The fault of a checkpoint that is put in a good one's place: its files agree with themselves."""
Strike = Callable[[], None]


class Ending(NamedTuple):
    """How a command ended that was typed in a tampered run."""

    exit_code: int
    decision: Decision | None
    reasons: tuple[str, ...]
    message: str


class Sandbox:
    """Copies of a correct run, and what is done to them."""

    def __init__(self, setting: DrillSetting, correct: Path, folder: Path) -> None:
        """Take a correct run, and where copies of it may lie."""
        self.setting, self.correct, self.folder = setting, correct, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(setting.folder / "store", folder / "store")

    def finished(self, name: str = "run") -> Path:
        """Return a copy of the correct run, in a directory of its own."""
        return Path(shutil.copytree(self.correct, self.folder / name))

    def good(self, name: str = "good") -> Path:
        """Return a copy of the correct run's checkpoint."""
        return Path(shutil.copytree(self.correct / CHECKPOINT_FOLDER, self.folder / name))

    def bad(self, name: str = "bad") -> Path:
        """Return a copy of it with a fault that only its answers show."""
        folder, fault = self.good(name), find_fault(BAD)
        if not isinstance(fault, FileFault):
            raise TypeError(fault.name)
        with tampering(folder) as files:
            fault.spoil(files)
        return folder

    def again(
        self,
        run: Path,
        *,
        before: Mapping[Stage[Any], Strike] | None = None,
        after: Mapping[Stage[Any], Strike] | None = None,
    ) -> Ending:
        """Type the correct run's command again in `run`, and strike between its stages."""
        request = self.setting.request(find_format(FORMAT))
        with striking(before or {}, after or {}):
            try:
                with refusals_reported(run):
                    job = preflight(request, into=run)
                _, record = run_job(job, into=run, work=pipeline.release_gate)
            except HarnessError as error:
                return refused(error)
        return ended(record)

    def gate(self, checkpoint: Path, baseline: str, run: Path) -> Ending:
        """Judge a checkpoint against what is said to be its baseline."""
        request = self.setting.request(find_format(FORMAT), model=baseline, qformat=None)
        try:
            with refusals_reported(run):
                job = preflight_gate(request, checkpoint)
            _, record = run_job(job, into=run, work=pipeline.foreign_gate)
        except HarnessError as error:
            return refused(error)
        return ended(record)

    @staticmethod
    def looked_at(run: Path) -> Ending:
        """Ask `status` and `report` what became of a run; return the more favorable answer."""
        try:
            status, record = status_of(run), read_run(run)
        except HarnessError as error:
            return refused(error)
        if status.ending == Decision.GO or record.serve_command is not None:
            return Ending(ExitCode.GO, Decision.GO, (), status.ending)
        return ended(record)


def edit(path: Path, change: Callable[[Any], object], *, mend: bool = False) -> None:
    """Change what a noun says; `mend` its digest, as somebody would who knows that there is one."""
    values = json.loads(path.read_bytes())
    change(values)
    if mend:
        del values[RECORD_SHA256]
        values = {RECORD_SHA256: digest_of_record(values), **values}
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def exchange(one: Path, other: Path) -> None:
    """Let two folders change places."""
    aside = one.with_name(f"{one.name}.aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def rewrite(folder: Path, by: Path) -> None:
    """Write the files of another folder over those of one, in place and with times kept."""
    for file in sorted(folder.iterdir()):
        times = file.stat()
        with file.open("r+b") as content:
            content.write((by / file.name).read_bytes())
            content.truncate()
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def with_times_of(folder: Path, model: Path) -> None:
    """Give the files of one folder the times of another's, as an archive with fixed times does."""
    for file in sorted(folder.iterdir()):
        times = (model / file.name).stat()
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def striking(
    before: Mapping[Stage[Any], Strike], after: Mapping[Stage[Any], Strike]
) -> Iterator[None]:
    """Strike before or after stages of the runs in the context."""
    enter = RunDirectory.stage

    def stage(
        run: RunDirectory, one: Stage[Any], *, made_from: MadeFrom, make: Callable[[], Any]
    ) -> object:
        before.get(one, _nothing)()
        noun = enter(run, one, made_from=made_from, make=make)
        after.get(one, _nothing)()
        return noun

    with ExitStack() as stack:
        stack.enter_context(exchanged(RunDirectory, "stage", stage))
        yield


def ended(record: RunRecord) -> Ending:
    """Return how a run ended."""
    verdict, failure = record.verdict, record.failure
    reasons = tuple(map(str, verdict.reason_codes)) if verdict else ()
    if failure is not None:
        return Ending(exit_code(record), None, (failure.reason_code,), failure.message)
    decision = verdict.decision if verdict else None
    return Ending(exit_code(record), decision, reasons, message_of(record))


def refused(error: HarnessError) -> Ending:
    """Return how a command ended that was refused."""
    return Ending(int(error.exit_code), None, (error.reason,), str(error))


def _nothing() -> None:
    pass
