"""A program that is begun before it is told its arguments does what `python -m` does with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[2] / "harness" / "plugin"
SERVER = """
import json, multiprocessing, os, sys

def child(queue):
    main = sys.modules["__main__"]
    queue.put([__name__, main.__spec__ and main.__spec__.name, sys.argv])

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    main = sys.modules["__main__"]
    ours = [__name__, main.__spec__.name, sys.argv[1:], os.path.basename(sys.argv[0])]
    print(json.dumps([ours, queue.get()]))
    process.join()
"""


def made(folder: Path) -> None:
    package = folder / "served" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "server.py").write_text(SERVER, encoding="utf-8")


def test_it_goes_on_as_the_module_would_and_so_do_the_processes_that_it_spawns(
    tmp_path: Path,
) -> None:
    made(tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{PLUGIN}:{tmp_path}"}
    arguments = ["--model", "/m/a b", "--port", "1"]
    usual = subprocess.run(
        [sys.executable, "-m", "served.inner.server", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    os.mkfifo(tmp_path / "told")
    command = [sys.executable, "-m", "harness_vllm.waiting", "served.inner.server", str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as begun:
        (tmp_path / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        (tmp_path / "told").write_bytes(b"1")
        out, errors = begun.communicate()
    assert begun.returncode == 0, errors
    assert float((tmp_path / "seconds").read_text(encoding="ascii")) >= 0
    assert errors == usual.stderr == ""
    assert json.loads(out)[1][:2] == json.loads(usual.stdout)[1][:2]
    assert json.loads(out)[0] == json.loads(usual.stdout)[0]


def test_it_says_how_it_is_used() -> None:
    command = [sys.executable, "-m", "harness_vllm.waiting", "a_module"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(PLUGIN)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
