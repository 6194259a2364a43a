"""Cells as jobs of a real Ray cluster: three nodes on the loopback interface."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import requests
import yaml

from harness import shipped
from harness.artifacts.nights import CellEnding, NightRow
from harness.errors import PrerequisiteError
from harness.nightly.ray import RayWork, run_on_ray
from harness.nights import open_ledger
from tests.nightly.clusters import ODD
from tests.nightly.test_matrix import write
from tests.small_suite import write_small_suite
from tests.tiers import slow
from tests.typed import typed as typed_command

ROOT = Path(__file__).resolve().parents[2]
PLAY = """\
import os, signal, sys, time
folder, code, wait = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, lambda *_: (open(folder + "/told", "w").close(), sys.exit(143)))
first = not os.path.exists(folder + "/begun")
with open(folder + "/part", "w") as file:
    file.write(f"{os.getpid()} {os.getppid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
os.rename(folder + "/part", folder + "/begun")
while first and wait == "wait":
    time.sleep(0.05)
sys.exit(code)
"""


def work(folder: Path, cell: str, code: int, *, gpus: int = 0, wait: bool = False) -> RayWork:
    (folder / cell).mkdir(parents=True)
    (folder / "play.py").write_text(PLAY)
    command = (sys.executable, str(folder / "play.py"), str(folder / cell), str(code))
    last = "wait" if wait else "go"
    return RayWork(cell=cell, command=(*command, last), folder=folder, gpus=gpus)


def begun(folder: Path, cell: str) -> list[str]:
    """Wait until a cell has begun; return its process, Ray's worker above it, and its GPUs."""
    while not (folder / cell / "begun").exists():
        time.sleep(0.05)
    return (folder / cell / "begun").read_text().split(" ")


class Night(NamedTuple):
    """How a nightly ended, and its row of each cell."""

    code: int
    rows: dict[str, NightRow]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def node(*arguments: str, **variables: str) -> Iterator[None]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
    command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", "--object-store-memory"]
    started = subprocess.Popen(
        [*command, "80000000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | variables,
    )
    try:
        yield
    finally:
        below = psutil.Process(started.pid).children(recursive=True)
        started.terminate()
        started.wait()
        for one in below:
            if one.is_running():
                one.kill()


@pytest.fixture(scope="session")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cells of these nights keep their baselines."""
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="session")
@slow("starts a Ray cluster of three nodes")
def ray_cluster(baselines: Path) -> Iterator[str]:
    """The address of the job API: a head that runs no job, and two workers.

    One has four places for GPUs, which are a number that Ray deals out; there need be none.
    """
    pytest.importorskip("ray", reason="needs Ray (the extra `ray`)")
    port, dashboard = free_port(), free_port()
    address = f"http://127.0.0.1:{dashboard}"
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets have short paths
    head = [f"--port={port}", f"--temp-dir={folder}", "--num-cpus=0", "--num-gpus=0"]
    head += [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    with ExitStack() as nodes:
        nodes.callback(shutil.rmtree, folder, ignore_errors=True)
        nodes.enter_context(node("--head", *head))
        wait_for(address)
        kept = {"HARNESS_BASELINES": str(baselines)}
        joins = f"--address=127.0.0.1:{port}"
        # One after the other: two that start at a time choose the same ports.
        for number, has in enumerate((("2", "4"), ("1", "0")), start=2):
            needs = f"--num-cpus={has[0]}", f"--num-gpus={has[1]}"
            nodes.enter_context(node(joins, *needs, **kept))
            wait_for(address, nodes=number)
        yield address


def wait_for(address: str, *, nodes: int = 1) -> None:
    """Wait until the head answers, and knows so many nodes that live."""
    while num_alive(address) < nodes:
        time.sleep(0.5)


def num_alive(address: str) -> int:
    try:
        answer = requests.get(f"{address}/api/v0/nodes", timeout=60)
        answer.raise_for_status()
    except requests.RequestException:
        return 0
    listed = answer.json()["data"]["result"]["result"]
    return sum(one["state"] == "ALIVE" for one in listed)


def test_each_cell_ends_with_its_own_exit_code(ray_cluster: str, tmp_path: Path) -> None:
    folder = tmp_path / ODD
    works = [
        work(folder, "go", 0),
        work(folder, "no-go", 4, gpus=1),
        work(folder, "big", 5, gpus=2),
    ]
    endings = run_on_ray(ray_cluster, works, "codes")
    assert {cell: one.exit_code for cell, one in endings.items()} == {"go": 0, "no-go": 4, "big": 5}
    assert [len(begun(folder, c)[2].split(",")) for c in ("no-go", "big")] == [1, 2]
    assert not list(folder.rglob("pwned"))


@contextmanager
def typed(address: str, folder: Path, *works: RayWork) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs works and prints how they ended, as the command does."""
    code = (
        "import logging\n"
        "from pathlib import Path\n"
        f"logging.basicConfig(level='INFO', filename={str(folder / 'log')!r})\n"
        "from harness.interrupts import listen\n"
        "listen()\n"
        "from harness.nightly.ray import RayWork, run_on_ray\n"
        f"works = {[(one.cell, one.command) for one in works]!r}\n"
        f"works = [RayWork(cell=a, command=b, folder=Path({str(folder)!r})) for a, b in works]\n"
        f"for cell, one in run_on_ray({address!r}, works, {str(folder)!r}).items():\n"
        "    print(cell, one.exit_code, one.num_lost, one.message)\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_cell_whose_worker_is_killed_goes_on(ray_cluster: str, tmp_path: Path) -> None:
    works = [work(tmp_path, "lost", 4, wait=True), work(tmp_path, "quiet", 0)]
    with typed(ray_cluster, tmp_path, *works) as process:
        pid, worker, _ = begun(tmp_path, "lost")
        os.kill(int(worker), signal.SIGKILL)
        said, _ = process.communicate()
    assert said.splitlines() == ["lost 4 1 ", "quiet 0 0 "]
    while not is_gone(int(pid)):  # Ray's watcher ends it; a cell's lock keeps the next one waiting
        time.sleep(0.1)


def test_told_to_end_it_stops_its_jobs(ray_cluster: str, tmp_path: Path) -> None:
    with typed(ray_cluster, tmp_path, work(tmp_path, "long", 0, wait=True)) as process:
        pid = int(begun(tmp_path, "long")[0])
        process.terminate()
        process.wait()
    assert is_gone(pid)
    assert (tmp_path / "long" / "told").exists()


def test_typed_again_it_waits_for_the_job_that_runs(ray_cluster: str, tmp_path: Path) -> None:
    long = work(tmp_path, "long", 4, wait=True)
    with typed(ray_cluster, tmp_path, long):
        pid = int(begun(tmp_path, "long")[0])
    (tmp_path / "long" / "begun").unlink()
    with typed(ray_cluster, tmp_path, long) as again:
        while "long runs already, as job" not in (tmp_path / "log").read_text():
            time.sleep(0.1)
        assert not is_gone(pid)
        assert not (tmp_path / "long" / "begun").exists()
        again.terminate()
        again.wait()
    assert is_gone(pid)


def test_typed_as_a_command_each_cell_is_typed_on_the_cluster_and_collected(
    ray_cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    cells = [{"name": name, "model": "./model", "qformat": "nvfp4"} for name in ("a", "b")]
    matrix = write(tmp_path, cells=cells)
    out = tmp_path / "nights"
    done = typed_command(
        "nightly", matrix, "--ray", ray_cluster, "--night", "n", "--out", out, env={}
    )
    assert done.code == 3  # both were refused, which is no verdict
    rows = open_ledger(out).rows()
    assert sorted((row.cell, row.ending, row.exit_code) for row in rows) == [
        ("a", CellEnding.NOT_RUN, 2),
        ("b", CellEnding.NOT_RUN, 2),
    ]
    assert (out / "nights" / "n" / "nightly.xml").exists()


ENDINGS = {
    "nvfp4": CellEnding.GO,
    "nvfp4-mse": CellEnding.GO,
    "w4a16": CellEnding.GO,
    "fp8": CellEnding.GO,
    "mxfp8": CellEnding.GO,
    "broken": CellEnding.NO_GO,
    "random": CellEnding.INCONCLUSIVE,
    "mistyped": CellEnding.NOT_RUN,
}
"""How the cells of one matrix end: the canary's, those of a small random model, and one that asks
for a format that there is not."""


@pytest.fixture(scope="module")
@slow("sixteen cells, most of which run the canary")
def both_nights(
    ray_cluster: str,
    baselines: Path,
    tiny_qwen3: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Night, Night]:
    """One matrix, run by the processes of this machine and by the two workers of a cluster."""
    folder = tmp_path_factory.mktemp("nights")
    write_small_suite(folder, tasks=4, items=100, margin=0.1)
    broken = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text(encoding="utf-8"))
    broken["calibration"] |= {"size": 1, "seq": 2}
    (folder / "broken.yaml").write_text(yaml.safe_dump(broken), encoding="utf-8")
    canary = {"model": "canary", "calib_size": 64}
    asked: dict[str, dict[str, object]] = {
        "nvfp4": canary | {"qformat": "nvfp4"},
        "nvfp4-mse": canary | {"qformat": "nvfp4_mse"},
        "w4a16": canary | {"qformat": "w4a16_nvfp4"},
        "fp8": canary | {"qformat": "fp8"},
        "mxfp8": canary | {"qformat": "mxfp8"},
        "broken": {"model": "canary", "recipe": "./broken.yaml"},
        "random": {"model": str(tiny_qwen3), "qformat": "fp8", "calib_size": 64},
        "mistyped": canary | {"qformat": "nvfp3"},
    }
    same = {"suite": "./quick.yaml", "engine": "reference"}
    matrix = write(folder, cells=[{"name": n, **same, **keys} for n, keys in asked.items()])

    def night(name: str, *more: str) -> Night:
        kept = {"HARNESS_BASELINES": str(baselines)}
        out = folder / name
        done = typed_command("nightly", matrix, "--night", "n", "--out", out, *more, env=kept)
        return Night(done.code, {row.cell: row for row in open_ledger(out).rows()})

    return night("here"), night("ray", "--ray", ray_cluster)


def test_a_night_on_two_workers_has_the_verdicts_of_a_night_here(
    both_nights: tuple[Night, Night],
) -> None:
    here, ray = both_nights
    assert {cell: row.ending for cell, row in here.rows.items()} == ENDINGS
    assert here.code == ray.code == 3  # a cell that was not run outweighs a NO-GO
    for cell, row in here.rows.items():
        for name in ("ending", "exit_code", "reason_codes", "digests", "tasks"):
            assert getattr(ray.rows[cell], name) == getattr(row, name), (cell, name)


def test_both_workers_were_at_work(ray_cluster: str, both_nights: tuple[Night, Night]) -> None:
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 -- an extra

    listed = JobSubmissionClient(ray_cluster).list_jobs()
    jobs = [one for one in listed if (one.metadata or {}).get("cell") in both_nights[1].rows]
    assert len(jobs) == len(ENDINGS)
    assert len({one.driver_node_id for one in jobs}) == 2


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'harness-ptq-gate\[ray\]'"):
        run_on_ray("http://127.0.0.1:1", [], "n")


def test_an_address_where_nobody_answers_is_refused() -> None:
    pytest.importorskip("ray", reason="needs Ray (the extra `ray`)")
    with pytest.raises(PrerequisiteError, match="no job API of Ray answers there"):
        run_on_ray(f"http://127.0.0.1:{free_port()}", [], "n")
