"""Commits of a git repository, each in a worktree of its own; the user's checkout stays as it is.

Hooks of the repository are not run. A worktree that was not finished, for its bisect was killed, is
made again.
"""

import shutil
import subprocess
from pathlib import Path

from harness.bisecting.axes import Axis, Kind, Point
from harness.errors import PrerequisiteError, UsageError

_PACKAGE = "harness/__main__.py"
_MARK = ".whole"


def commit_axis(repository: Path, good: str, bad: str, paths: tuple[str, ...]) -> Axis:
    """Return the commits from `good` to `bad`, along first parents.

    Args:
        repository: any folder in it.
        good: a commit, as git names it; an ancestor of `bad`.
        bad: another.
        paths: only commits that change these, if any are named.

    Raises:
        UsageError: git knows one of them not, or there is nothing between them.
        PrerequisiteError: there is no git.
    """
    first, last = (_commit(repository, name) for name in (good, bad))
    if _git(repository, "merge-base", "--is-ancestor", first, last) is None:
        message = f"'{good}' is no ancestor of '{bad}'. Name an older commit of the same branch."
        raise UsageError(message)
    listed = ("rev-list", "--first-parent", "--reverse", f"{first}..{last}", "--", *paths)
    between = (_git(repository, *listed) or "").split()
    if not between:
        where = f" that changes {', '.join(paths)}" if paths else ""
        message = f"there is no commit{where} between '{good}' and '{bad}'. Name others."
        raise UsageError(message)
    points = [_point(repository, commit) for commit in (first, *between)]
    return Axis(kind=Kind.COMMIT, points=tuple(points))


def holds_harness(repository: Path, axis: Axis) -> bool:
    """Return whether the commits are of harness itself, so that their own code is run."""
    ends = (axis.points[0].value, axis.points[-1].value)
    return all(_git(repository, "cat-file", "-e", f"{end}:{_PACKAGE}") is not None for end in ends)


def check_out(repository: Path, commit: str, into: Path) -> None:
    """Make `into` a worktree of a commit, unless it is one already.

    Raises:
        UsageError: git could not.
    """
    mark = into.with_name(into.name + _MARK)
    if mark.exists() and into.is_dir():
        return
    remove(repository, into)
    into.parent.mkdir(parents=True, exist_ok=True)
    quiet = ("-c", "core.hooksPath=/dev/null")
    if _git(repository, *quiet, "worktree", "add", "--detach", str(into), commit) is None:
        message = f"git could not check out {commit:.12} into '{into}'. Is there room?"
        raise UsageError(message)
    mark.touch()


def remove(repository: Path, tree: Path) -> None:
    """Remove a worktree, whole or not, and let git forget it."""
    tree.with_name(tree.name + _MARK).unlink(missing_ok=True)
    _git(repository, "worktree", "remove", "--force", "--force", str(tree))
    if tree.is_dir():
        shutil.rmtree(tree)
    _git(repository, "worktree", "prune")


def what_changed(repository: Path, commit: str) -> str:
    """Return which files a commit changed."""
    return (_git(repository, "show", "--stat=100", "--format=%an, %ad", commit) or "").strip()


def top_of(folder: Path) -> Path:
    """Return the top folder of the repository that `folder` is in.

    Raises:
        UsageError: it is in none.
    """
    top = _git(folder, "rev-parse", "--show-toplevel") if folder.is_dir() else None
    if not top:
        message = f"'{folder}' is in no git repository. Name one with --repo."
        raise UsageError(message)
    return Path(top.strip())


def _commit(repository: Path, name: str) -> str:
    found = _git(
        repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
    )
    if not found:
        message = f"'{name}' is no commit of '{repository}'. Check it with git log."
        raise UsageError(message)
    return found.split()[-1]


def _point(repository: Path, commit: str) -> Point:
    subject = (_git(repository, "log", "-1", "--format=%s", commit) or "").strip()
    return Point(name=commit[:12], title=f"{commit[:12]} {subject}", value=commit)


def _git(repository: Path, *words: str) -> str | None:
    """Return what git prints; None where it says no."""
    program = shutil.which("git")
    if program is None:
        message = "git is not here. Install it, or name engines or checkpoints."
        raise PrerequisiteError(message)
    done = subprocess.run(
        [program, "-C", str(repository), *words], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None
