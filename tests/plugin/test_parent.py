"""vLLM's processes end with the one that started them; here without vLLM."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "harness" / "plugin"
TREE = """
import multiprocessing, signal, sys, time
from harness_vllm.parent import end_with_parent

def worker(depth, is_stubborn):
    if is_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    end_with_parent()
    if depth:
        start(depth - 1, is_stubborn)
    else:
        print("up", flush=True)
    time.sleep(600)

def start(depth, is_stubborn):
    context = multiprocessing.get_context(sys.argv[1])
    context.Process(target=worker, args=(depth, is_stubborn)).start()

if __name__ == "__main__":
    end_with_parent()
    start(2, sys.argv[2] == "stubborn")
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["willing", "stubborn"])
def test_a_tree_ends_when_its_root_is_killed(tmp_path: Path, kind: str) -> None:
    """However its processes were started; all three at once, for stubborn ones are waited for."""
    script = tmp_path / "tree.py"
    script.write_text(TREE, encoding="utf-8")
    with ExitStack() as roots:
        below: list[psutil.Process] = []
        for method in ("spawn", "fork", "forkserver"):
            root = roots.enter_context(
                subprocess.Popen(
                    [sys.executable, script, method, kind],
                    env=os.environ | {"PYTHONPATH": str(PLUGIN)},
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            )
            assert root.stdout is not None
            assert root.stdout.readline() == b"up\n"
            all_below = psutil.Process(root.pid).children(recursive=True)
            running = [one for one in all_below if one.is_running()]
            assert len(running) >= 3
            below += running
            root.send_signal(signal.SIGKILL)
        assert wait_until_gone(below)


def test_a_process_that_nobody_started_so_is_left_alone() -> None:
    script = (
        "from harness_vllm.parent import end_with_parent; import threading\n"
        "end_with_parent(); print(threading.active_count())"
    )
    environment = os.environ | {"PYTHONPATH": str(PLUGIN)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def wait_until_gone(processes: list[psutil.Process]) -> bool:
    give_up = time.monotonic() + 30
    while left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > give_up:
            sys.stderr.write(f"still there: {left}\n")
            return False
        time.sleep(0.05)
    return True
