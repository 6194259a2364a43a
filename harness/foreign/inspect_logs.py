"""inspect_ai's logs, .eval and .json, handed to inspect_ai's own library in a child process."""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import PrerequisiteError, RunDirectoryError, UnreadableError
from harness.foreign.inspect_child import NO_LIBRARY
from harness.reading import bounds, iter_json_lines, open_regular

VARIABLE = "HARNESS_INSPECT"
_CHILD = Path(__file__).with_name("inspect_child.py")
_MARKS = (b'"version"', b'"status"', b'"eval"')
_HEAD = 4096
_LAST_BYTES = 4096
"""Of what a child says of its end."""


def logs_in(path: Path) -> list[Path]:
    """Return the logs that a folder holds, or the folders in it; a file that is one, itself."""
    if path.is_file():
        return [path] if _is_log(path) else []
    found = [*path.glob("*.eval"), *path.glob("*.json")]
    found += [*path.glob("*/*.eval"), *path.glob("*/*.json")]
    return sorted(file for file in found if file.is_file() and _is_log(file))


def _is_log(path: Path) -> bool:
    if path.suffix == ".eval":
        return True
    if path.suffix != ".json":
        return False
    with open_regular(path) as file:
        head = file.read(_HEAD)
    return all(mark in head for mark in _MARKS) and head.lstrip().startswith(b"{")


class Log(NamedTuple):
    """One log that was read."""

    path: Path
    header: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]


def read_logs(paths: Sequence[Path]) -> list[Log]:
    """Return what inspect_ai says of each log and of its samples (`inspect_child`).

    One process reads them all, for it takes seconds to begin.

    Raises:
        PrerequisiteError: no Python with inspect_ai is known.
        UnreadableError: a log is damaged, or larger than any such.
    """
    python = _python(_place(paths))
    for path in paths:
        _check_size(path)
    return logs_of_lines(paths, _lines(python, paths))


def logs_of_lines(paths: Sequence[Path], lines: Iterable[Mapping[str, Any]]) -> list[Log]:
    """Return the logs that the child printed.

    Raises:
        UnreadableError: one of them says of no run.
    """
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for line in lines:
        if "log" in line:
            found.append((line["log"], []))
        else:
            found[-1][1].append(line["sample"])
    logs = [Log(path, *read) for path, read in zip(paths, found, strict=True)]
    for log in logs:
        if not isinstance(log.header.get("eval"), dict):
            raise UnreadableError(log.path, "is no log of inspect_ai")
    return logs


def _place(paths: Sequence[Path]) -> Path:
    """Return the log, or the folder in which they all lie."""
    return paths[0] if len(paths) == 1 else Path(os.path.commonpath(paths))


def _lines(python: str, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        lines, said = Path(folder) / "lines.jsonl", Path(folder) / "said.txt"
        code = _run_child(python, paths, lines, said)
        if code == NO_LIBRARY:
            raise _no_library(_place(paths), f"'{python}' cannot import it: {_last(said, code)}")
        if code:
            is_full = lines.stat().st_size >= bounds.LINES_BYTES
            why = f"more than {bounds.LINES_BYTES} bytes of samples" if is_full else ""
            why = f"cannot be read by inspect_ai: {why or _last(said, code)}"
            raise UnreadableError(_place(paths), why)
        try:
            for line in iter_json_lines(lines):
                if isinstance(line.value, dict):
                    yield line.value
        except UnreadableError as error:  # of a file that nobody can look at any more
            why = f"has a sample that, as inspect_ai reads it, {error.why}"
            raise UnreadableError(_place(paths), why) from error


def _run_child(python: str, paths: Sequence[Path], lines: Path, said: Path) -> int:
    """Run the child and return its exit code.

    Args:
        python: that has inspect_ai.
        paths: the logs.
        lines: what it reads of them is written there.
        said: and what it says of how it goes, there.

    Raises:
        PrerequisiteError: the Python does not start.
    """
    limits = (bounds.LOG_MEMORY_BYTES, bounds.LOG_CPU_S, bounds.LINES_BYTES)
    command = [python, "-I", str(_CHILD), *map(str, limits), *(str(p.resolve()) for p in paths)]
    with lines.open("wb") as out, said.open("wb") as errors:
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, check=False
            ).returncode
        except OSError as error:
            why = f"'{python}' does not start: {error.strerror}"
            raise _no_library(_place(paths), why) from error


def _python(place: Path) -> str:
    """Return the Python that is named for inspect_ai, else ours where it has inspect_ai.

    Raises:
        PrerequisiteError: none is known.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named
    if find_spec("inspect_ai") is not None:
        return sys.executable
    raise _no_library(place, "no Python that has it is named")


def _no_library(place: Path, why: str) -> PrerequisiteError:
    message = (
        f"'{place}' is of inspect_ai, whose own library reads its logs: {why}. Install it in an "
        "environment of its own (`python -m venv DIR && DIR/bin/pip install inspect-ai`) and set "
        f"{VARIABLE}=DIR/bin/python."
    )
    return PrerequisiteError(message)


def _check_size(path: Path) -> None:
    """Refuse a file that is larger, or would become larger, than any log.

    Raises:
        UnreadableError: it is, or is no archive.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if path.suffix == ".eval":
            try:
                members = zipfile.ZipFile(file).infolist()
            except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
                raise UnreadableError(path, f"is no archive of inspect_ai: {error}") from error
            size = max(size, sum(member.file_size for member in members))
            if len({member.filename for member in members}) != len(members):
                raise UnreadableError(path, "has two members of one name")
    if size > bounds.LINES_BYTES:
        why = f"holds {size} bytes, more than the {bounds.LINES_BYTES} of any such"
        raise UnreadableError(path, why)


def _last(said: Path, code: int) -> str:
    """Return how the child ended, in its last words."""
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - _LAST_BYTES))
        words = file.read().decode("utf-8", "replace").strip().splitlines()
    return words[-1][:300] if words else f"it ended with {code}"


def check_has_samples(path: Path, number: int, total: object) -> None:
    """Refuse a log that lacks answers.

    Raises:
        RunDirectoryError: it holds none, or fewer than were asked for.
    """
    if not number:
        message = (
            f"'{path}' has scores and no samples: scores without answers cannot be paired. Run the "
            "task again with samples in its log."
        )
        raise RunDirectoryError(message)
    if isinstance(total, int) and number != total:
        message = (
            f"'{path}' has {number} of {total} samples: the run did not come to its end. Run it "
            "again, or `inspect eval-retry` it."
        )
        raise RunDirectoryError(message)
