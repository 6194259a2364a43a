"""Signals, readers that go away, and what the operating system refuses: one line, and its code."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from harness import refusals
from harness.cli.app import app
from harness.cli.console import concluding
from harness.errors import ExitCode
from harness.interrupts import ToldToEndError

ROOT = str(Path(__file__).resolve().parents[2])
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def python(program: str, **streams: int) -> subprocess.Popen[str]:
    # nohup's children, tests among them, ignore SIGHUP.
    return subprocess.Popen(
        ["/usr/bin/env", "--default-signal=HUP", sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": ROOT},
        stdout=streams.get("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
    )


IMPORTING = """
import sys, types
from harness.interrupts import listen
listen()
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "harness.cli.commands":
            print("importing", flush=True)
            import time
            try:
                time.sleep(600)
            except BaseException:  # as some libraries do
                time.sleep(600)
sys.meta_path.insert(0, Slow())
from harness.cli import run
sys.argv = ["harness", "status", "/nowhere"]
run()
"""
WORKING = """
import sys, time
from harness.interrupts import listen
listen()
from harness.cli.console import concluding
import typer
try:
    with concluding(as_json=False):
        try:
            print("working", flush=True)
            {work}
        finally:
            time.sleep(0.3)
            print("cleaned up", flush=True)
except typer.Exit as end:
    sys.exit(end.exit_code)
"""
SWALLOWED = """
            class Swallows:
                def __del__(self):
                    print("now", flush=True)
                    time.sleep(600)
            Swallows()
            try:
                time.sleep(600)
            except BaseException:
                pass
            time.sleep(600)
"""


def told(program: str, number: signal.Signals, *, times: int = 1) -> tuple[int, str, str]:
    """Send a signal once the program has said something."""
    with python(program) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if "Swallows" in program:
            process.stdout.readline()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.01)
        out, err = process.communicate()
        return process.returncode, out, err


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_command_that_still_imports(number: signal.Signals, code: int) -> None:
    ended, _, err = told(IMPORTING, number, times=2)
    assert ended == code
    assert err.splitlines() == [
        f"harness: interrupted by {number.name}. Type the command again to continue."
    ]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_second_signal_breaks_off_no_cleaning_up(number: signal.Signals, code: int) -> None:
    ended, out, err = told(WORKING.format(work="time.sleep(600)"), number, times=3)
    assert (ended, out) == (code, "cleaned up\n")
    assert len(err.splitlines()) == 1
    assert number.name in err


def test_a_signal_that_was_swallowed_is_told_again() -> None:
    program = WORKING.format(work="pass" + SWALLOWED)
    ended, out, err = told(program, signal.SIGTERM)
    assert (ended, out) == (143, "cleaned up\n")
    assert len(err.splitlines()) == 1
    assert "interrupted by SIGTERM" in err


def test_a_signal_that_is_ignored_stays_so() -> None:
    program = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from harness.interrupts import listen; listen(); print('ready', flush=True)\n"
        "import time; time.sleep(0.3); print('unharmed')"
    )
    code, out, _ = told(program, signal.SIGHUP)
    assert (code, out) == (0, "unharmed\n")


@pytest.mark.parametrize(
    ("argument", "code"), [("--help", 0), ("drill --list", 0), ("status /nowhere --json", 2)]
)
def test_a_reader_that_has_gone_changes_no_exit_code(argument: str, code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = argument.split()
    program = f"import sys; sys.argv[1:] = {arguments!r}\nfrom harness.__main__ import main; main()"
    with python(program, stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_changes_no_exit_code(closed: str) -> None:
    number = {"stdout": 1, "stderr": 2}[closed]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -m harness --version {number}>&-'],
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_output_that_cannot_be_written_is_said_once() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "drill", "--list"],
            env=os.environ | {"PYTHONPATH": ROOT},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "'standard output' cannot be written: no space is left" in done.stderr


def test_an_argument_that_is_not_utf8_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"harness", b"status", b"run\xff"],
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert b"is not UTF-8" in done.stderr


REFUSED = [
    (OSError(errno.EACCES, "x", "/a"), 2),
    (OSError(errno.EISDIR, "x", "/a"), 2),
    (OSError(errno.ELOOP, "x", "/a"), 2),
    (OSError(errno.ENAMETOOLONG, "x", "/a"), 2),
    (OSError(errno.ENXIO, "x", "/a"), 2),
    (OSError(errno.EROFS, "x", "/a"), 2),
    (OSError(errno.ENOTDIR, "x", b"/a"), 2),
    (OSError(errno.EADDRINUSE, "Address in use", "/a"), 2),
    (OSError("'/a' says a library\nin two lines"), 2),
    (OSError(errno.ENOSPC, "x", "/a"), 3),
    (OSError(errno.EDQUOT, "x", "/a"), 3),
    (OSError(errno.EIO, "x", "/a"), 3),
    (OSError(errno.EMFILE, "x", "/a"), 3),
    (OSError(errno.ENFILE, "x", "/a"), 3),
    (MemoryError("cannot allocate /a"), 3),
    (UnicodeEncodeError("utf-8", "/a\udcff", 2, 3, "surrogates not allowed"), 2),
    (ValueError("/a: embedded null byte"), 2),
]


@pytest.mark.parametrize(("error", "code"), REFUSED, ids=str)
def test_what_the_system_refuses_is_one_line_with_the_path(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, concluding(as_json=False):
        raise error
    assert ended.value.exit_code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "/a" in lines[0]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), TypeError("a bug")])
def test_a_bug_stays_a_bug(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"), concluding(as_json=False):
        raise error


@pytest.mark.parametrize("number", sorted(refusals.SHORT))
def test_what_is_refused_to_a_stage_ends_with_three_and_can_be_resumed(number: int) -> None:
    error = refusals.running(OSError(number, os.strerror(number), "/a"))
    assert (error.exit_code, error.retryable) == (ExitCode.STAGE_FAILED, True)
    assert "type the same command again" in str(error)


def test_a_command_that_is_told_to_end_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, concluding(as_json=True):
        raise ToldToEndError(signal.SIGTERM)
    assert ended.value.exit_code == 143
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_every_command_has_its_ending(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that nobody gave is refused by the command itself, in one line."""
    for command in ("status", "report"):
        with pytest.raises(SystemExit) as ended:
            app([command, "x" * 5000])
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ("sys.exit(0)", 0, ["registered"]),
        ("sys.exit(4)", 4, ["registered"]),
        ("sys.exit('a line')", 1, ["registered", "taken apart"]),
        ("1 / 0", 1, ["registered", "taken apart"]),
        ("pass", 0, ["registered", "taken apart"]),
    ],
)
def test_a_command_that_has_its_exit_code_is_not_taken_apart(
    ends: str, code: int, said: list[str]
) -> None:
    program = (
        "import atexit, sys\nfrom harness.leaving import leaving_at_once\n"
        "class Late:\n    def __del__(self): print('taken apart')\n"
        "late = Late()\n"
        f"with leaving_at_once():\n    atexit.register(print, 'registered')\n    {ends}\n"
    )
    with python(program) as process:
        out, _ = process.communicate()
    assert (process.returncode, out.splitlines()) == (code, said)


@pytest.mark.parametrize(("entry", "said"), [("program", []), ("main", ["taken apart"])])
def test_only_the_program_ends_at_once(entry: str, said: list[str]) -> None:
    program = (
        "import sys\n"
        "class Late:\n    def __del__(self): print('taken apart')\n"
        "late = Late()\nsys.argv[1:] = ['--version']\n"
        f"from harness.__main__ import {entry}\n{entry}()\n"
    )
    with python(program) as process:
        out, _ = process.communicate()
    assert (process.returncode, out.splitlines()[1:]) == (0, said)


def test_what_was_registered_before_is_done_as_ever() -> None:
    program = (
        "import atexit, sys\natexit.register(print, 'measured')\n"
        "sys.argv[1:] = ['--version']\nfrom harness.__main__ import program; program()\n"
    )
    with python(program) as process:
        out, _ = process.communicate()
    assert (process.returncode, out.splitlines()[1:]) == (0, ["measured"])
