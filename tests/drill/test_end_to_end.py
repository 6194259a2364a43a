"""The seed incident and a bad disk through the command line, and a fault that nothing catches."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.tiers import slow

SEED = (
    "eager-experts-off",
    "quantizer-lists-not-matched",
    "experts-skipped-by-export",
    "nested-layers-not-found",
    "expert-input-scales-deleted",
)
DRILLED = (*SEED, "disk-changes-a-bit")
HARMLESS = """
import harness.drill.catalogue as catalogue
from harness.drill.fault import FileFault
fault = FileFault(name="harmless", incident="https://x.org/a/b/issues/1", what="nothing at all",
                  spoil=lambda files: None)
catalogue.FAULTS = (*catalogue.FAULTS, fault)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drill") / "drill"


@pytest.fixture(scope="module")
@slow("a whole run of a correct format, and two of a fault")
def seed_incident(cli_process: Cli, short_suite: Path, folder: Path) -> dict[str, Any]:
    return drill(cli_process, short_suite, folder, SEED[-1])


@pytest.fixture(scope="module")
@slow("whole runs, two a fault and one a correct format")
def drilled(
    cli_process: Cli, short_suite: Path, folder: Path, seed_incident: dict[str, Any]
) -> dict[str, Any]:
    del seed_incident  # its runs are used again
    return drill(cli_process, short_suite, folder, *DRILLED)


def drill(cli: Cli, suite: Path, folder: Path, *names: str) -> dict[str, Any]:
    faults = [word for name in names for word in ("--fault", name)]
    done = cli("drill", *faults, "--suite", suite, "--run-dir", folder, "--jobs", "2", "--json")
    assert done.code == 0, done.err
    report: dict[str, Any] = done.json
    return report


def caught(report: dict[str, Any], fault: str, pass_: str = "first") -> tuple[str, list[str]]:  # noqa: S107  # no secret
    found = next(one for one in report["drilled"] if one["fault"] == fault)[pass_]
    return found["caught_by"], found["evidence"]


def test_the_seed_incident_is_caught_by_either_of_two_stages(seed_incident: dict[str, Any]) -> None:
    assert caught(seed_incident, SEED[-1]) == ("verify", ["expert-input-scales-complete"])
    assert caught(seed_incident, SEED[-1], "second")[0] == "serve"
    assert [one["decision"] for one in seed_incident["correct"]] == ["GO"]


@pytest.mark.parametrize(
    ("fault", "defense", "evidence"),
    [
        ("eager-experts-off", "calibrate", "no-expert-observed"),
        ("quantizer-lists-not-matched", "preflight", "rule-matches-nothing"),
        ("experts-skipped-by-export", "export", "read-back-mismatch"),
        ("nested-layers-not-found", "calibrate", "no-expert-observed"),
        ("expert-input-scales-deleted", "verify", "expert-input-scales-complete"),
        ("disk-changes-a-bit", "export", "read-back-mismatch"),
    ],
)
def test_each_fault_is_caught_where_it_strikes(
    drilled: dict[str, Any], fault: str, defense: str, evidence: str
) -> None:
    found, checks = caught(drilled, fault)
    assert (found, checks[0]) == (defense, evidence)


@pytest.mark.parametrize("fault", DRILLED)
def test_each_fault_meets_a_second_net(drilled: dict[str, Any], fault: str) -> None:
    first, _ = caught(drilled, fault)
    second, evidence = caught(drilled, fault, "second")
    assert second is not None
    assert (second, evidence) != (first, caught(drilled, fault)[1])


def test_the_correct_runs_beside_them_get_go(drilled: dict[str, Any]) -> None:
    assert {one["format"]: one["decision"] for one in drilled["correct"]} == {
        "nvfp4": "GO",
        "nvfp4_experts_only": "GO",
    }


def test_every_fault_leaves_run_directories_and_the_drill_its_reports(
    drilled: dict[str, Any], folder: Path
) -> None:
    assert drilled["finished"]
    for name in ("drill.json", "drill.md", "junit.xml"):
        assert (folder / name).is_file()
    run = folder / "faults" / "expert-input-scales-deleted"
    assert json.loads((run / "first" / "verdict.json").read_bytes())["decision"] == "NO-GO"
    assert (run / "second" / "report.html").is_file()


def test_a_fault_that_nothing_catches_fails_the_drill(
    cli_process: Cli, short_suite: Path, folder: Path, drilled: dict[str, Any]
) -> None:
    del drilled  # its correct run is used again
    done = cli_process(
        "drill",
        *("--fault", "harmless", "--suite", short_suite, "--run-dir", folder),
        fault=HARMLESS,
    )
    assert done.code == 4, done.err
    assert "NOT CAUGHT: harmless" in done.out
    assert "NOTHING (GO)" in done.out


def test_an_unknown_fault_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    done = cli("drill", "--fault", "no-such-fault", "--run-dir", tmp_path / "drill")
    assert done.code == 2
    assert "drill --list" in done.err
    assert not (tmp_path / "drill").exists()


def test_a_folder_that_holds_something_else_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "notes.txt").write_text("mine")
    done = cli("drill", "--fault", "layer-zeroed", "--run-dir", tmp_path)
    assert done.code == 2
    assert (tmp_path / "faults" / "notes.txt").read_text() == "mine"


def test_the_list_names_every_fault_and_starts_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("drill", "--list", "--json", "--run-dir", tmp_path / "drill")
    names = [one["fault"] for one in done.json]
    assert len(names) == len(set(names)) >= 20
    assert set(DRILLED) <= set(names)
    assert not (tmp_path / "drill").exists()
