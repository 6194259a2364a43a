"""What is typed makes sense or is refused; commits come from git, each in a tree of its own."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.bisecting import Kind, Question, commit_axis, engine_axis, top_of
from harness.bisecting.commits import check_out, remove
from harness.bisecting.trial import check_question
from harness.errors import UsageError
from tests.typed import typed

GIT = shutil.which("git") or ""
pytestmark = pytest.mark.skipif(not GIT, reason="git is not here")
SUBJECTS = ("first", "rules", "docs", "rules again")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Four commits, of which the second and the last change rules.yaml."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number, subject in enumerate(SUBJECTS):
        file = "notes.md" if subject == "docs" else "rules.yaml"
        (folder / file).write_text(f"state {number}\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", subject)
    return folder


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        [GIT, "-C", str(folder), *author, *words], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_commits_come_from_good_to_bad(repository: Path) -> None:
    axis = commit_axis(repository, "main~3", "main", ())
    assert [point.title.partition(" ")[2] for point in axis.points] == list(SUBJECTS)


def test_only_commits_that_change_a_path_are_taken(repository: Path) -> None:
    axis = commit_axis(repository, "main~3", "main", ("rules.yaml",))
    assert [p.title.partition(" ")[2] for p in axis.points] == ["first", "rules", "rules again"]


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("main", "main~2", "no ancestor"),
        ("nothing", "main", "no commit"),
        ("main", "main", "no commit"),
    ],
)
def test_a_range_that_is_none_is_refused(repository: Path, good: str, bad: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        commit_axis(repository, good, bad, ())


def test_a_commit_is_checked_out_beside_the_users_own_checkout(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "rules.yaml").write_text("edited by the user\n")
    commit = git(repository, "rev-parse", "main~3").strip()
    tree = tmp_path / "trees" / "one"
    check_out(repository, commit, tree)
    assert (tree / "rules.yaml").read_text() == "state 0\n"
    assert (repository / "rules.yaml").read_text() == "edited by the user\n"


def test_a_tree_that_was_not_finished_is_made_again(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "main").strip()
    tree = tmp_path / "trees" / "one"
    tree.mkdir(parents=True)
    (tree / "half").write_text("")
    check_out(repository, commit, tree)
    assert not (tree / "half").exists()
    assert (tree / "rules.yaml").exists()


def test_trees_leave_nothing_in_the_repository(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "trees" / "one"
    check_out(repository, git(repository, "rev-parse", "main").strip(), tree)
    remove(repository, tree)
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert not tree.exists()


def test_hooks_of_the_repository_are_not_run(repository: Path, tmp_path: Path) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    check_out(repository, git(repository, "rev-parse", "main").strip(), tmp_path / "trees" / "one")
    assert not (tmp_path / "ran").exists()


def test_a_command_that_no_commit_can_change_is_refused(repository: Path) -> None:
    axis = commit_axis(repository, "main~3", "main", ())
    question = Question(
        axes=(axis,), command=("e2e", "--model", "canary"), repository=str(top_of(repository))
    )
    with pytest.raises(UsageError, match="names no file of them"):
        check_question(question)


@pytest.mark.parametrize("listed", ["0.31.0", "0.31.0,0.31.0", "0.31.0,../x", "a=/nowhere/x,b"])
def test_engines_that_make_no_range_are_refused(listed: str) -> None:
    with pytest.raises(UsageError):
        engine_axis(listed)


def test_engines_are_versions_or_named_environments(tmp_path: Path) -> None:
    axis = engine_axis(f"0.31.0,mine={tmp_path}")
    assert axis.kind is Kind.ENGINE
    assert [(p.name, p.value) for p in axis.points] == [
        ("0.31.0", "0.31.0"),
        ("mine", str(tmp_path)),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "e2e"], "nothing is named"),
        (["--good", "main", "--", "e2e"], "belong together"),
        (["--engines", "0.31.0,0.32.0", "--", "doctor"], "Type one of them after --"),
        (["--engines", "0.31.0,0.32.0", "--", "e2e", "--run-dir", "x"], "given by the bisect"),
    ],
)
def test_what_makes_no_sense_ends_with_one_line(
    tmp_path: Path, words: list[str], said: str
) -> None:
    done = typed("bisect", "--out", tmp_path / "b", *words)
    assert done.code == 2
    assert said in done.line()
    assert not (tmp_path / "b").exists()
