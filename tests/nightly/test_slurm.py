"""The script for Slurm, run by a bash with an sbatch that plays the controller."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.nightly.placing import read_settings
from harness.nightly.slurm import slurm_text
from tests.nightly.clusters import CELLS, ODD, Cell, placing

BASH, SHELLCHECK = str(shutil.which("bash")), shutil.which("shellcheck")
SBATCH = """\
#!{python} -S
import json, os, subprocess, sys
given = dict(one[2:].partition("=")[::2] for one in sys.argv[1:])
script = sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps([given, os.environ["HARNESS_NIGHT"]]) + "\\n")
number = sum(1 for _ in open({log!r}))
if {refuses!r} == given["job-name"]:
    sys.exit("sbatch: error: invalid partition")
first, _, last = given.get("array", "0-0").partition("-")
for task in range(int(first), int(last) + 1):
    environment = os.environ | ({{"SLURM_ARRAY_TASK_ID": str(task)}} if "array" in given else {{}})
    subprocess.run(["bash", "-s"], input=script, text=True, check=True, env=environment,
                   cwd=given["chdir"])
print(f"{{100 + number}};a-cluster")
"""
HARNESS = """\
#!{python} -S
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""


class Slurm:
    """A machine with sbatch, and a harness that notes what was typed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._python = folder, sys.executable
        self._submitted, self._typed = folder / "submitted", folder / "typed"
        (folder / "bin").mkdir()
        self._write("harness python", HARNESS, self._typed)
        monkeypatch.setattr(sys, "executable", str(folder / "bin" / "harness python"))
        self.refuses = ""

    def _write(self, name: str, text: str, log: Path) -> None:
        program = self.folder / "bin" / name
        filled = {"python": self._python, "log": str(log), "refuses": getattr(self, "refuses", "")}
        program.write_text(text.format(**filled))
        program.chmod(0o755)

    def submit(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._write("sbatch", SBATCH, self._submitted)
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [BASH, "-s", "--", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PATH": path},
            cwd=self.folder,
        )

    @property
    def submitted(self) -> list[tuple[dict[str, str], str]]:
        return [(g, n) for g, n in map(json.loads, self._submitted.read_text().splitlines())]

    @property
    def typed(self) -> list[list[str]]:
        return [json.loads(line) for line in self._typed.read_text().splitlines()]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / ODD
    folder.mkdir()
    return Slurm(folder, monkeypatch)


def test_each_cell_is_typed_once_with_its_paths_as_they_are(slurm: Slurm) -> None:
    ended = slurm.submit(slurm_text(CELLS, placing(slurm.folder)))
    assert ended.returncode == 0, ended.stderr
    out = ["--night", "2031-12-31", "--out", str(slurm.folder / "nights")]
    start = ["-m", "harness", "nightly", str(slurm.folder / "matrix.yaml")]
    cells = ["canary-nvfp4", "canary_fp8.v33", "moe-fp8", "moe-nvfp4", "dense"]
    assert slurm.typed == [
        *([*start, "--only", cell, *out] for cell in cells),
        [*start, "--collect", *out],
    ]
    assert not list(slurm.folder.rglob("pwned"))


def test_cells_of_equal_needs_are_one_array(slurm: Slurm) -> None:
    slurm.submit(slurm_text(CELLS, placing(slurm.folder, partition="gpu", exclusive="")))
    given = [one for one, _ in slurm.submitted]
    assert [one.get("array") for one in given] == ["0-1", "0-1", "0-0", None]
    assert [one.get("gres") for one in given] == [None, "gpu:h200:2", "gpu:1", None]
    assert all(one["partition"] == "gpu" and one["exclusive"] == "" for one in given)
    assert all("requeue" in one and one["open-mode"] == "append" for one in given)
    assert all(one["chdir"] == str(slurm.folder) for one in given)


def test_a_job_collects_when_all_have_ended_however_they_did(slurm: Slurm) -> None:
    ended = slurm.submit(slurm_text(CELLS, placing(slurm.folder)))
    assert slurm.submitted[-1][0]["dependency"] == "afterany:101:102:103"
    assert "collected by job 104" in ended.stdout


def test_the_folder_of_logs_is_made_and_its_percent_signs_are_no_patterns(slurm: Slurm) -> None:
    slurm.submit(slurm_text(CELLS, placing(slurm.folder)))
    assert (slurm.folder / "nights" / "logs").is_dir()
    log = slurm.submitted[0][0]["output"]
    assert log.endswith("/nights/logs/%x-%A_%a.log")
    assert "100%% &" in log


def test_the_night_is_said_when_it_is_submitted(slurm: Slurm) -> None:
    text = slurm_text([Cell("a")], placing(slurm.folder, night=""))
    assert slurm.submit(text, "n-7").returncode == 0
    assert {night for _, night in slurm.submitted} == {"n-7"}
    assert "n-7" in slurm.typed[0]


def test_a_night_that_is_no_name_submits_nothing(slurm: Slurm) -> None:
    text = slurm_text([Cell("a")], placing(slurm.folder, night=""))
    ended = slurm.submit(text, "../x")
    assert ended.returncode == 2
    assert not (slurm.folder / "submitted").exists()


def test_what_sbatch_refuses_ends_the_script(slurm: Slurm) -> None:
    slurm.refuses = "harness-release-2"
    ended = slurm.submit(slurm_text(CELLS, placing(slurm.folder)))
    assert ended.returncode != 0
    assert len(slurm.submitted) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"array": "0-9"}, "--set array: is set by harness"),
        ({"Partition": "x"}, "is no option of sbatch"),
    ],
)
def test_what_harness_says_to_sbatch_itself_is_refused(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        slurm_text(CELLS, placing(tmp_path, **settings))


def test_hardware_that_the_cluster_has_no_name_for_is_refused(tmp_path: Path) -> None:
    cells = [Cell("a", 1, "B200")]
    with pytest.raises(UsageError, match=r"cell 'a' is for 'B200'.*--set 'hardware.B200=NAME'"):
        slurm_text(cells, placing(tmp_path))


@pytest.mark.parametrize("typed", ["partition", "=x", "a b=c", "partition=x\ny"])
def test_a_setting_that_is_none_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        read_settings([typed])


def test_a_setting_that_is_typed_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="typed twice"):
        read_settings(["a=1", "a=2"])


def test_a_path_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="control character"):
        placing(tmp_path / "a\nb")


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
@pytest.mark.parametrize("night", ["", "n"])
def test_shellcheck_finds_nothing(tmp_path: Path, night: str) -> None:
    text = slurm_text(CELLS, placing(tmp_path / ODD, night=night))
    tasks = [task.split("\nTASK\n")[0] + "\n" for task in text.split("<<'TASK'\n")[1:]]
    assert len(tasks) == 4
    for number, script in enumerate([text, *tasks]):
        (tmp_path / f"{number}.sh").write_text(script)
    files = sorted(tmp_path.glob("*.sh"))
    # SC2016: `$(...)` in single quotes is part of a path that is meant so.
    command = [str(SHELLCHECK), "--severity=style", "--exclude=SC2016", *map(str, files)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.stdout == ""
