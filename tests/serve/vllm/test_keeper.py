"""No process outlives its keepers, whoever is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from harness import keeper as keeper_module
from harness.kept import AT_ONCE

Gone = Callable[[Iterable[int], float], bool]
KEEPER = (sys.executable, "-I", "-S", str(keeper_module.__file__))
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
TREE = f"""
import subprocess, sys, time
stubborn = [sys.executable, "-c", {STUBBORN!r}]
subprocess.Popen(stubborn)
subprocess.Popen(stubborn, start_new_session=True)
# A process whose parent has ended: only a subreaper still sees it.
subprocess.run(["/bin/sh", "-c", "setsid sleep 600 & setsid sleep 601 &"], check=True)
print("up", file=sys.stderr, flush=True)
"""
WAIT = TREE + "time.sleep(600)"


def start(script: str) -> subprocess.Popen[bytes]:
    command = [*KEEPER, "3", *KEEPER, "1", sys.executable, "-c", script]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def tree_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Wait until the tree is up; outer keeper first, then the inner one, then the server."""
    assert process.stderr is not None
    assert b"up" in process.stderr.readline()
    below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(below) >= 6
    return [process.pid, *below]


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_nothing_is_left_when_a_keeper_or_the_server_is_killed(killed: int, all_gone: Gone) -> None:
    with start(WAIT) as process:
        pids = tree_of(process)
        os.kill(pids[killed], signal.SIGKILL)
        assert all_gone(pids, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_when_the_keeper_is_told_to_stop(
    number: signal.Signals, all_gone: Gone
) -> None:
    with start(WAIT) as process:
        pids = tree_of(process)
        os.kill(process.pid, number)
        assert all_gone(pids, 20)


def test_nothing_is_left_when_the_pipe_ends(all_gone: Gone) -> None:
    with start(WAIT) as process:
        pids = tree_of(process)
        assert process.stdin is not None
        process.stdin.close()
        assert all_gone(pids, 20)
        assert process.wait() == 128 + signal.SIGTERM


def test_a_server_that_is_worth_no_grace_gets_none(all_gone: Gone) -> None:
    command = [*KEEPER, "1000", *KEEPER, "900", sys.executable, "-c", f"{TREE}\n{STUBBORN}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        pids = tree_of(process)
        assert process.stdin is not None
        process.stdin.write(AT_ONCE)
        process.stdin.close()
        assert all_gone(pids, 20)


def test_nothing_is_left_when_the_server_ends_by_itself(all_gone: Gone) -> None:
    with start(TREE + "time.sleep(1); sys.exit(7)") as process:
        pids = tree_of(process)
        assert process.wait() == 7
        assert all_gone(pids, 1)


def test_the_server_gets_time_to_end_by_itself() -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: (time.sleep(0.5), sys.exit(5)))\n"
        "print('up', file=sys.stderr, flush=True)\n"
        "time.sleep(600)"
    )
    with start(script) as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 5


def test_the_keeper_names_the_server_and_its_session() -> None:
    script = "import os, sys, time; print('up', os.getsid(0), file=sys.stderr); time.sleep(600)"
    with start(script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        word, number = process.stdout.readline().split()
        assert word == b"pid"
        assert process.stderr.readline().split() == [b"up", number]
        assert int(number) != os.getsid(0)
        process.terminate()


def test_the_keeper_needs_only_what_every_python_has() -> None:
    source = Path(str(keeper_module.__file__)).read_text(encoding="utf-8")
    done = subprocess.run([*KEEPER], capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert "harness." not in source.partition('"""')[2].partition('"""')[2]


def test_a_command_that_ends_before_its_keeper_goes_on_has_its_status() -> None:
    """On a busy machine a keeper may wait for a processor for as long as a short command takes."""
    program = (
        "import sys, time\nfrom harness import keeper\n"
        "keeper.print = lambda *_, **__: time.sleep(0.5)\n"
        "sys.exit(keeper.Keeper(['/bin/sh', '-c', 'exit 3'], 1).run())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        try:
            assert process.wait(timeout=60) == 3
        finally:
            process.kill()
