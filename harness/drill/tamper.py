"""Make every known attack on the gate, and see whether it ends without a GO.

The drill of faults shows that a bad checkpoint is caught. This one shows that the gate cannot be
led to believe something about other files, another baseline or another run than those it looked at.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness import pipeline
from harness.artifacts import Decision, save, write_atomically
from harness.drill import attacks_baselines, attacks_files, attacks_records
from harness.drill.attack import Attack
from harness.drill.attempt import DrillSetting
from harness.drill.catalogue import find_format
from harness.drill.run import quiet_runs, refuse_other_folders
from harness.drill.sandbox import FORMAT, Ending, Sandbox, ended
from harness.drill.table import missed
from harness.errors import ExitCode, RunDirectoryError, UsageError
from harness.preflight import preflight
from harness.report import Case, junit_document
from harness.runs import run_job

REPORT = "tamper.json"
ATTACKS = (*attacks_files.ATTACKS, *attacks_records.ATTACKS, *attacks_baselines.ATTACKS)
_STORE = "HARNESS_BASELINES"
_log = logging.getLogger("harness.drill")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tampered:
    """How one attack ended."""

    way: str
    what: str
    stopped: bool
    """Whether it ended without GO, for the cause that was put there."""
    exit_code: int
    decision: Decision | None
    reasons: tuple[str, ...]
    message: str

    @property
    def is_go(self) -> bool:
        """Return whether it led to a GO."""
        return self.decision is Decision.GO or self.exit_code == ExitCode.GO


@dataclass(frozen=True, kw_only=True, slots=True)
class TamperReport:
    """All attacks that were made."""

    engine: str
    suite: str
    ways: tuple[Tampered, ...] = ()
    """The attacks, by the name that this file has always had for them."""
    finished: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Return 0 if every attack was stopped for its cause, NO-GO if one led to GO."""
        if any(one.is_go for one in self.ways):
            return ExitCode.NO_GO
        return ExitCode.GO if all(one.stopped for one in self.ways) else ExitCode.STAGE_FAILED


def tamper(setting: DrillSetting, names: Sequence[str], *, fresh: bool = False) -> TamperReport:
    """Make a correct run, attack copies of it, and write the report after each.

    Args:
        setting: where and how; the baselines' store lies there too, so that the user's is not
            touched.
        names: of the attacks; all where there are none.
        fresh: whether to make the correct run anew.

    Raises:
        UsageError: an attack is not known, or the correct run cannot start.
        RunDirectoryError: the folder holds something else, or the correct run gets no GO.
    """
    attacks = find_attacks(names)
    refuse_other_folders(setting.folder, REPORT)
    report = TamperReport(engine=setting.engine, suite=setting.suite)
    _keep(report, setting)
    with _own_store(setting.folder / "store"), quiet_runs():
        correct = _correct_run(setting, fresh=fresh)
        for number, attack in enumerate(attacks, start=1):
            folder = setting.folder / "attacks" / attack.name
            with _own_store(folder / "store"):
                one = make_attack(attack, Sandbox(setting, correct, folder))
            report = _keep(replace(report, ways=(*report.ways, one)), setting)
            word = "stopped" if one.stopped else "GO" if one.is_go else "ANOTHER CAUSE"
            _log.info("drill: %d of %d, %s: %s", number, len(attacks), attack.name, word)
    return _keep(replace(report, finished=True), setting)


def make_attack(attack: Attack, sandbox: Sandbox) -> Tampered:
    """Make one attack, and say how it ended."""
    ending = attack.tamper(sandbox)
    told = f"{' '.join(ending.reasons)} {ending.message}"
    one = Tampered(
        way=attack.name,
        what=attack.what,
        stopped=re.search(attack.cause, told) is not None,
        exit_code=ending.exit_code,
        decision=ending.decision,
        reasons=ending.reasons,
        message=ending.message,
    )
    return replace(one, stopped=False) if one.is_go else one


def find_attacks(names: Sequence[str]) -> tuple[Attack, ...]:
    """Return the attacks of these names; all where there are none.

    Raises:
        UsageError: there is no such attack.
    """
    known = {attack.name: attack for attack in ATTACKS}
    for name in names:
        if name not in known:
            message = f"unknown attack '{name}': 'harness drill --tamper --list' has {len(known)}."
            raise UsageError(message)
    return tuple(known[name] for name in names) or ATTACKS


def text_of_attacks(report: TamperReport) -> str:
    """Return the table for a terminal."""
    width = max((len(one.way) for one in report.ways), default=0)
    lines = [
        f"{one.way:<{width}}  {_word(one):<13}  exit {one.exit_code}  {', '.join(one.reasons)}"
        for one in report.ways
    ]
    stopped = sum(one.stopped for one in report.ways)
    return "\n".join([*lines, "", f"{stopped} of {len(report.ways)} attacks were stopped"])


def _word(one: Tampered) -> str:
    return "stopped" if one.stopped else "GO" if one.is_go else "another cause"


def _correct_run(setting: DrillSetting, *, fresh: bool) -> Path:
    folder = setting.folder / "correct"
    job = preflight(setting.request(find_format(FORMAT)), into=folder)
    _, record = run_job(job, into=folder, fresh=fresh, work=pipeline.release_gate)
    ending: Ending = ended(record)
    if ending.decision is not Decision.GO:
        message = f"the correct run got no GO, so nothing can be shown: {ending.message}"
        raise RunDirectoryError(message)
    return folder


@contextmanager
def _own_store(folder: Path) -> Iterator[None]:
    """Let baselines be kept in a folder of the drill's."""
    before = os.environ.get(_STORE)
    os.environ[_STORE] = str(folder)
    try:
        yield
    finally:
        del os.environ[_STORE]
        if before is not None:
            os.environ[_STORE] = before


def _keep(report: TamperReport, setting: DrillSetting) -> TamperReport:
    folder = setting.folder
    folder.mkdir(parents=True, exist_ok=True)
    save(report, folder / REPORT, made_from={"setting": setting.digest})
    write_atomically(folder / "junit.xml", _junit_xml(report))
    return report


def _junit_xml(report: TamperReport) -> str:
    cases = [
        Case(one.way, missed(None if one.stopped else f"{_word(one)}: {one.message}"))
        for one in report.ways
    ]
    return junit_document({"tamper": cases}, name="harness drill --tamper")
