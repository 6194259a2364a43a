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
from harness.reading import bounds, iter_json_lines, open_regular

VARIABLE = "HARNESS_INSPECT"
_CHILD = Path(__file__).with_name("inspect_child.py")
_MARKS = (b'"version"', b'"status"', b'"eval"')
_HEAD = 4096


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
    python = _python(paths[0])
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


def _lines(python: str, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"
        limits = (str(bounds.LOG_MEMORY_BYTES), str(bounds.LOG_CPU_S))
        with lines.open("wb") as out:
            done = subprocess.run(
                [python, "-I", str(_CHILD), *limits, *(str(path.resolve()) for path in paths)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                check=False,
            )
        if done.returncode:
            where = ", ".join(f"'{path}'" for path in paths)
            raise UnreadableError(where, f"cannot be read by inspect_ai: {_last(done)}")
        for line in iter_json_lines(lines):
            if isinstance(line.value, dict):
                yield line.value


def _python(path: Path) -> str:
    """Return the Python that has inspect_ai.

    Raises:
        PrerequisiteError: none is known.
    """
    if find_spec("inspect_ai") is not None:
        return sys.executable
    named = os.environ.get(VARIABLE)
    if named and os.access(named, os.X_OK):
        return named
    message = (
        f"'{path}' is a log of inspect_ai, whose own library reads it. Install it with "
        f"`pip install 'harness-ptq-gate[inspect]'`, or set {VARIABLE} to a Python that has it."
    )
    raise PrerequisiteError(message)


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


def _last(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return how the child ended, in its last words."""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[-1][:300] if said else f"it ended with {done.returncode}"


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
