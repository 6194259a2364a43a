"""The child process that reads inspect_ai's logs: which Python runs it, and what bounds it.

A package of the same name and the same two functions stands in for inspect_ai's library, so that
what it gives, and how much, is known.
"""

import json
import shlex
import sys
from pathlib import Path

import pytest

from harness.errors import PrerequisiteError, UnreadableError
from harness.foreign.inspect_logs import read_logs
from harness.reading import bounds

STAND_IN = """
from types import SimpleNamespace

def read_eval_log(path, header_only):
    return SimpleNamespace(model_dump=lambda **_: {"eval": {"task": "t"}})

def read_eval_log_samples(path, **_):
    for number in range(%d):
        yield SimpleNamespace(
            id=number, epoch=1, input="x" * %d, choices=None, target="", messages=(), output=None,
            scores=None, error=None, limit=None, invalidation=None, metadata={}, model_usage={},
        )
"""
RUN = "import sys, runpy; sys.path.insert(0, {!r}); sys.argv = sys.argv[1:]; "
RUN += "runpy.run_path(sys.argv[0], run_name='__main__')"


def as_python(file: Path, *command: str) -> None:
    """Write a program that is called as a Python is, with `-I` and a script."""
    file.write_text(f'#!/bin/sh\nshift\nexec {shlex.join(command)} "$@"\n')
    file.chmod(0o755)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the stand-in's file, of 3 small samples."""
    library = tmp_path / "library"
    (library / "inspect_ai").mkdir(parents=True)
    (library / "inspect_ai" / "__init__.py").touch()
    file = library / "inspect_ai" / "log.py"
    file.write_text(STAND_IN % (3, 1))
    as_python(tmp_path / "python", sys.executable, "-I", "-S", "-c", RUN.format(str(library)))
    monkeypatch.setenv("HARNESS_INSPECT", str(tmp_path / "python"))
    return file


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.json").write_text(json.dumps({"version": 2, "status": "", "eval": {}}))
    return sorted(folder.iterdir())


def test_each_log_has_its_samples(stand_in: Path, logs: list[Path]) -> None:
    del stand_in
    assert [(log.path, len(log.samples)) for log in read_logs(logs)] == [(p, 3) for p in logs]


def test_more_samples_than_the_bound_are_refused_by_their_folder(
    stand_in: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.write_text(STAND_IN % (1000, 1000))
    monkeypatch.setattr(bounds, "LINES_BYTES", 1 << 17)
    with pytest.raises(UnreadableError) as error:
        read_logs(logs)
    folder = logs[0].parent
    assert str(error.value) == (
        f"'{folder}' cannot be read by inspect_ai: more than 131072 bytes of samples."
    )


def test_a_sample_that_is_beyond_a_line_is_refused_by_its_log(
    stand_in: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.write_text(STAND_IN % (1, 5000))
    monkeypatch.setattr(bounds, "LINE_BYTES", 4096)
    with pytest.raises(UnreadableError, match=r"a\.json' has a sample that, as inspect_ai reads"):
        read_logs(logs[:1])


def test_what_the_library_says_last_is_the_reason(stand_in: Path, logs: list[Path]) -> None:
    stand_in.write_text(STAND_IN % (1, 1) + "\n    raise ValueError('no header')\n")
    with pytest.raises(UnreadableError, match="read by inspect_ai: ValueError: no header"):
        read_logs(logs)


def test_a_python_without_inspect_ai_is_no_damaged_log(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_python(tmp_path / "python", sys.executable, "-I", "-S")
    monkeypatch.setenv("HARNESS_INSPECT", str(tmp_path / "python"))
    with pytest.raises(PrerequisiteError, match="cannot import it: No module named 'inspect_ai'"):
        read_logs(logs)


@pytest.mark.parametrize("name", ["", "gone", "text"])
def test_what_is_no_program_is_no_damaged_log(
    tmp_path: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "text").write_text("no program")
    monkeypatch.setenv("HARNESS_INSPECT", str(tmp_path / name))
    with pytest.raises(PrerequisiteError, match=r"does not start: .* Install it in an environment"):
        read_logs(logs)


def test_the_python_that_is_named_goes_before_our_own(
    stand_in: Path, logs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    del stand_in
    monkeypatch.setattr("harness.foreign.inspect_logs.find_spec", lambda _: object())
    assert len(read_logs(logs)) == 2
