"""A bisect over commits of a tiny stand-in for harness: each commit runs its own code.

The stand-in's run takes no time and fails one check from the planted commit on; everything else is
the real thing: git, worktrees, processes, the state on the disk.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.bisecting import Ending, Found, Question, bisect, commit_axis
from harness.errors import UsageError
from tests.bisecting.test_questions import GIT, git
from tests.tiers import slow

pytestmark = pytest.mark.skipif(not GIT, reason="git is not here")
PLANTED = 6
NUM_COMMITS = 9
STAND_IN = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1])
out.mkdir(parents=True, exist_ok=True)
tree = pathlib.Path(__file__).resolve().parents[1]
state = json.loads((tree / "state.json").read_text())
with (out.parent / "started.txt").open("a") as log:
    log.write(str(state["number"]) + "\\\\n")
time.sleep(state["seconds"])
check = {"id": "scales", "passed": state["passed"], "severity": "error", "message": "looked"}
(out / "integrity.json").write_text(json.dumps({"checks": [check]}))
sys.exit(state["code"])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "harness").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "harness" / "__init__.py").write_text("")
    (folder / "harness" / "__main__.py").write_text(STAND_IN.replace("\\\\n", "\\n"))
    return folder


def commit_all(repository: Path, codes: Sequence[int], *, seconds: float = 0.0) -> None:
    for number, code in enumerate(codes):
        state = {"number": number, "code": code, "passed": code != 4, "seconds": seconds}
        (repository / "state.json").write_text(json.dumps(state))
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", f"commit {number}")


def planted() -> list[int]:
    return [4 if number >= PLANTED else 0 for number in range(NUM_COMMITS)]


def question(repository: Path, **changes: object) -> Question:
    axis = commit_axis(repository, f"main~{NUM_COMMITS - 1}", "main", ())
    values = {"axes": (axis,), "command": ("e2e",), "repository": str(repository), **changes}
    return Question(**values)  # type: ignore[arg-type]  # fields by name


def started(folder: Path) -> list[str]:
    return (folder / "runs" / "started.txt").read_text().split()


def seen(folder: Path) -> set[str]:
    """Return what a bisect has written down."""
    state = folder / "bisect.json"
    return set(json.loads(state.read_text())["seen"]) if state.exists() else set()


def run(repository: Path, folder: Path, **changes: object) -> Found:
    return bisect(question(repository, **changes), folder)


def test_the_planted_commit_is_found_by_the_verdict(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, planted())
    found = run(repository, tmp_path / "b")
    assert found.ending is Ending.FOUND
    assert found.suspects[0].endswith(f" commit {PLANTED}")
    assert "state.json" in found.changed


def test_the_planted_commit_is_found_by_one_check(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, planted())
    found = run(repository, tmp_path / "b", check="scales")
    assert found.suspects[0].endswith(f" commit {PLANTED}")


def test_a_check_that_nobody_makes_says_which_are_made(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, planted())
    found = run(repository, tmp_path / "b", check="scale")
    assert found.ending is Ending.NOT_RUN
    assert all("those that were made: scales" in one.said for one in found.seen.values())


def test_commits_that_end_inconclusive_are_skipped(repository: Path, tmp_path: Path) -> None:
    codes = planted()
    codes[PLANTED - 1] = 5
    commit_all(repository, codes)
    found = run(repository, tmp_path / "b")
    assert found.ending is Ending.AMONG
    assert [s.rpartition(" ")[2] for s in found.suspects] == [str(PLANTED - 1), str(PLANTED)]


def test_ends_that_do_not_differ_are_said_to(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, [0] * NUM_COMMITS)
    found = run(repository, tmp_path / "b")
    assert found.ending is Ending.ALIKE
    assert len(found.seen) == 4


def test_asked_again_it_runs_nothing_again(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, planted())
    folder = tmp_path / "b"
    first = run(repository, folder)
    before = started(folder)
    assert run(repository, folder).suspects == first.suspects
    assert started(folder) == before


def test_an_end_that_could_not_be_run_is_run_again(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, [3, *planted()[1:]])
    folder = tmp_path / "b"
    assert run(repository, folder).ending is Ending.NOT_RUN
    before = len(started(folder))
    run(repository, folder)
    assert len(started(folder)) == before + 2


def test_another_question_in_the_same_folder_is_refused(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, planted())
    run(repository, tmp_path / "b")
    with pytest.raises(UsageError, match="bisect of something else"):
        run(repository, tmp_path / "b", check="scales")


def test_a_folder_with_other_files_is_left_alone(repository: Path, tmp_path: Path) -> None:
    commit_all(repository, planted())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds files but no bisect"):
        run(repository, tmp_path / "b")


def test_neither_the_checkout_nor_the_list_of_worktrees_changes(
    repository: Path, tmp_path: Path
) -> None:
    commit_all(repository, planted())
    (repository / "state.json").write_text("edited by the user")
    run(repository, tmp_path / "b")
    assert (repository / "state.json").read_text() == "edited by the user"
    assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.fixture
@slow("kills three bisects, each a process that imports the command line")
def killed(repository: Path, tmp_path: Path) -> Path:
    """The folder of a bisect that was killed at three times."""
    commit_all(repository, planted(), seconds=0.3)
    folder = tmp_path / "b"
    words = ["bisect", "--repo", str(repository), "--good", f"main~{NUM_COMMITS - 1}"]
    words += ["--bad", "main", "--out", str(folder), "--json", "--", "e2e"]
    for number in (1, 3, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *words], stdout=subprocess.PIPE
        )
        while len(seen(folder)) < number:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return folder


def test_killed_at_any_time_it_goes_on_where_it_was(repository: Path, killed: Path) -> None:
    before = seen(killed)
    found = run(repository, killed)
    assert before <= set(found.seen)
    assert found.suspects[0].endswith(f" commit {PLANTED}")
    assert {one.outcome for one in found.seen.values()} == {"good", "bad"}
