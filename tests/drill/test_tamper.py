"""The gate tampered with: every way to a GO that is not deserved ends without one, and says why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.artifacts import Decision
from harness.drill import WAYS, Setting, TamperReport, Way, tamper
from harness.drill.scene import Ending, Scene
from harness.drill.tamper import find_ways, go, text_of_ways
from harness.errors import ExitCode, RunDirectoryError, UsageError

SCORED = {"unpacked-with-anothers-times"}
"""Ways that score a checkpoint once more."""
SMOKED = {
    "exchanged-while-served",
    "exchanged-while-verified",
    "rewritten-after-verify",
    "smoke-turned",
}
"""Ways that need a smoke run, which the short suite has not."""
QUICK = [way.name for way in WAYS if way.name not in SCORED | SMOKED]


@pytest.fixture(scope="module")
def report(short_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> TamperReport:
    folder = tmp_path_factory.mktemp("tamper") / "drill"
    return tamper(Setting(folder, str(short_suite), "reference"), QUICK)


@pytest.mark.parametrize("way", QUICK)
def test_each_way_is_stopped_for_its_cause(report: TamperReport, way: str) -> None:
    one = next(one for one in report.ways if one.way == way)
    assert (one.stopped, one.message) == (True, one.message)


def test_a_drill_that_stopped_every_way_ends_with_0(report: TamperReport) -> None:
    assert (report.finished, report.exit_code) == (True, ExitCode.GO)
    assert f"{len(QUICK)} of {len(QUICK)} ways were stopped" in text_of_ways(report)


def test_there_are_at_least_25_ways_each_with_a_name_of_its_own() -> None:
    assert len({way.name for way in WAYS}) == len(WAYS) >= 25


def ending(code: int, decision: Decision | None, message: str) -> Callable[[Scene], Ending]:
    return lambda _: Ending(code, decision, (), message)


@pytest.mark.parametrize(
    ("way", "stopped", "code"),
    [
        (ending(0, Decision.GO, "the cause"), False, ExitCode.NO_GO),
        (ending(0, None, "the cause"), False, ExitCode.NO_GO),
        (ending(3, None, "something else"), False, ExitCode.STAGE_FAILED),
        (ending(3, None, "the cause"), True, ExitCode.GO),
    ],
)
def test_a_way_counts_as_stopped_without_go_and_for_its_cause(
    way: Callable[[Scene], Ending], *, stopped: bool, code: ExitCode
) -> None:
    scene = Scene.__new__(Scene)  # no way of these looks at it
    one = go(Way(name="x", what="y", go=way, cause="the cause"), scene)
    assert one.stopped is stopped
    assert TamperReport(engine="e", suite="s", ways=(one,)).exit_code is code


def test_an_unknown_way_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown way 'no-such-way'"):
        find_ways(["no-such-way"])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunDirectoryError, match="holds something else"):
        tamper(Setting(tmp_path, "drill", "reference"), [])
