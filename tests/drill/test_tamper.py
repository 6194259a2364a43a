"""The gate tampered with: every attack ends without one, and says why."""

from pathlib import Path

import pytest

from harness.artifacts import Decision
from harness.drill import ATTACKS, DrillSetting, TamperReport, tamper
from harness.drill.attack import Attack, Tamper
from harness.drill.sandbox import Ending, Sandbox
from harness.drill.tamper import find_attacks, make_attack, text_of_attacks
from harness.errors import ExitCode, RunDirectoryError, UsageError

SCORED = {"unpacked-with-anothers-times"}
"""Attacks that score a checkpoint once more."""
SMOKED = {
    "exchanged-while-served",
    "exchanged-while-verified",
    "rewritten-after-verify",
    "smoke-turned",
}
"""Attacks that need a smoke run, which the short suite has not."""
QUICK = [attack.name for attack in ATTACKS if attack.name not in SCORED | SMOKED]


@pytest.fixture(scope="module")
def report(short_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> TamperReport:
    folder = tmp_path_factory.mktemp("tamper") / "drill"
    return tamper(DrillSetting(folder, str(short_suite), "reference"), QUICK)


@pytest.mark.parametrize("name", QUICK)
def test_each_attack_is_stopped_for_its_cause(report: TamperReport, name: str) -> None:
    one = next(one for one in report.ways if one.way == name)
    assert (one.stopped, one.message) == (True, one.message)


def test_a_drill_that_stopped_every_attack_ends_with_0(report: TamperReport) -> None:
    assert (report.finished, report.exit_code) == (True, ExitCode.GO)
    assert f"{len(QUICK)} of {len(QUICK)} attacks were stopped" in text_of_attacks(report)


def test_there_are_at_least_25_attacks_each_with_a_name_of_its_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 25


def ending(code: int, decision: Decision | None, message: str) -> Tamper:
    return lambda _: Ending(code, decision, (), message)


@pytest.mark.parametrize(
    ("attack", "stopped", "code"),
    [
        (ending(0, Decision.GO, "the cause"), False, ExitCode.NO_GO),
        (ending(0, None, "the cause"), False, ExitCode.NO_GO),
        (ending(3, None, "something else"), False, ExitCode.STAGE_FAILED),
        (ending(3, None, "the cause"), True, ExitCode.GO),
    ],
)
def test_an_attack_counts_as_stopped_without_go_and_for_its_cause(
    attack: Tamper, *, stopped: bool, code: ExitCode
) -> None:
    sandbox = Sandbox.__new__(Sandbox)  # none of these looks at it
    one = make_attack(Attack(name="x", what="y", tamper=attack, cause="the cause"), sandbox)
    assert one.stopped is stopped
    assert TamperReport(engine="e", suite="s", ways=(one,)).exit_code is code


def test_an_unknown_attack_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown attack 'no-such'"):
        find_attacks(["no-such"])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunDirectoryError, match="holds something else"):
        tamper(DrillSetting(tmp_path, "drill", "reference"), [])
