"""A container's life on a real daemon; vLLM is a stand-in, so that each takes seconds."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from docker.client import DockerClient
from docker.models import containers

from harness import shipped
from harness.artifacts import Endpoint, EngineSpec
from harness.errors import EngineError, ReasonCode
from harness.serve import serve
from harness.serve.docker.container import container_user
from harness.serve.docker.daemon import remove_stale
from harness.serve.docker.server import serve_docker
from harness.serve.readiness import StartLimits

pytestmark = pytest.mark.docker
Images = Callable[..., str]
RUN = Path(__file__).parents[1] / "serving_run.py"
REPOSITORY = Path(__file__).resolve().parents[3]


def labelled(daemon: DockerClient, owner: int) -> list[containers.Container]:
    """Return the containers that a process has started."""
    label = f"harness.owner.pid={owner}"
    found: list[containers.Container] = daemon.containers.list(
        all=True, filters={"label": label}, ignore_removed=True
    )
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if condition():
            return True
        time.sleep(0.1)
    return False


def ask(endpoint: Endpoint, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {endpoint.api_key}",
    }
    request = urllib.request.Request(endpoint.base_url + path, data, headers)  # noqa: S310 -- our own server
    with urllib.request.urlopen(request) as answer:  # noqa: S310 -- our own server
        answered: dict[str, Any] = json.load(answer)
        return answered


@contextmanager
def served(engine: EngineSpec, model: Path, records: Path) -> Iterator[Endpoint]:
    with serve(engine, model, records=records) as endpoint:
        assert isinstance(endpoint, Endpoint)
        yield endpoint


@contextmanager
def running(
    image: str, model: Path, records: Path, how: str = ""
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(RUN), "docker", image, str(model), str(records), how],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_server_answers_inside_the_context_and_is_gone_after_it(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    records = tmp_path / "records"
    image = fake_image(FAKE_VLLM="ready", VLLM_OF_THE_IMAGE="own value")
    with served(dataclasses.replace(engine, image=image), model, records) as endpoint:
        assert ask(endpoint, "/v1/models")["data"] == [{"id": endpoint.model, "max_model_len": 64}]
        (container,) = labelled(daemon, os.getpid())
        assert container.attrs["Config"]["User"] == "{0.uid}:{0.gid}".format(container_user())
    assert labelled(daemon, os.getpid()) == []
    assert sorted(path.name for path in records.iterdir()) == [
        "load_report.rank0.json",
        "server.log",
    ]
    found = endpoint.deployment
    assert (found.engine, found.device, found.dtype) == ("docker", "cpu", "bfloat16")
    assert found.version.startswith("0.32.0 (torch 2.13.0, sha256:")
    assert "VLLM_OF_THE_IMAGE" in found.arguments, "by name alone"
    assert found.loaded is not None
    assert found.findings == ()
    assert found.log == str(records / "server.log")
    assert "dtype=torch.bfloat16" in (records / "server.log").read_text(encoding="utf-8")


def test_an_error_inside_the_context_leaves_no_container(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VLLM="ready"))
    with pytest.raises(ZeroDivisionError), served(engine, model, tmp_path / "records"):
        raise ZeroDivisionError
    assert labelled(daemon, os.getpid()) == []


def test_a_server_that_dies_is_reported_at_once_with_the_end_of_its_log_and_a_hint(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    image = fake_image(FAKE_VLLM="die", FAKE_LOG="torch.OutOfMemoryError: CUDA out of memory")
    with (
        pytest.raises(EngineError, match=r"status 1 .*Memory ran out(.|\n)*CUDA out of") as caught,
        served(dataclasses.replace(engine, image=image), model, tmp_path / "records"),
    ):
        pytest.fail("it served")
    assert caught.value.reason == ReasonCode.OUT_OF_MEMORY
    assert labelled(daemon, os.getpid()) == []


def test_a_silent_server_is_given_up_and_its_container_removed(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VLLM="hang"))
    limits = StartLimits(silence_seconds=3)
    with (
        pytest.raises(EngineError, match="neither answered nor wrote"),
        serve_docker(engine, model, records=tmp_path / "records", limits=limits),
    ):
        pytest.fail("it served")
    assert labelled(daemon, os.getpid()) == []


def test_a_container_that_somebody_removes_is_a_server_that_ended(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VLLM="hang"))

    def remove_it() -> None:
        wait_for((tmp_path / "records" / "server.log").exists, 20)
        labelled(daemon, os.getpid())[0].remove(force=True)

    somebody = threading.Thread(target=remove_it)
    somebody.start()
    with (
        pytest.raises(EngineError, match="ended with status 137"),
        served(engine, model, tmp_path / "records"),
    ):
        pytest.fail("it served")
    somebody.join()


ENDS = [
    (signal.SIGINT, "", 130),
    (signal.SIGTERM, "", 143),
    (signal.SIGKILL, "", -signal.SIGKILL),
    (signal.SIGKILL, "forked", -signal.SIGKILL),
]


@pytest.mark.parametrize("end", ENDS)
def test_no_container_is_left_when_harness_is_ended(
    end: tuple[signal.Signals, str, int],
    model: Path,
    tmp_path: Path,
    fake_image: Images,
    daemon: DockerClient,
) -> None:
    number, how, status = end
    with running(fake_image(FAKE_VLLM="ready"), model, tmp_path / "records", how) as run:
        assert len(labelled(daemon, run.pid)) == 1
        guardians = guardians_of(run.pid)
        assert len(guardians) == 1
        run.send_signal(number)
        assert run.wait(40) == status
    assert wait_for(lambda: not labelled(daemon, run.pid), 30)
    assert wait_for(lambda: not guardians[0].is_running(), 20)


def guardians_of(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children()
    return [child for child in children if "guardian" in " ".join(child.cmdline())]


def test_a_killed_guardian_costs_nothing_when_harness_ends_by_itself(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VLLM="ready"))
    with served(engine, model, tmp_path / "records"):
        (guardian,) = guardians_of(os.getpid())
        guardian.kill()
    assert labelled(daemon, os.getpid()) == []


def test_the_next_run_removes_what_a_run_left_that_was_killed_with_its_guardian(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    image = fake_image(FAKE_VLLM="ready")
    with running(image, model, tmp_path / "dead") as run:
        for child in psutil.Process(run.pid).children():
            child.kill()
        run.kill()
        run.wait()
        assert len(labelled(daemon, run.pid)) == 1
    with served(dataclasses.replace(engine, image=image), model, tmp_path / "records"):
        assert labelled(daemon, run.pid) == []


def test_a_living_runs_container_is_not_removed_by_another(
    model: Path, tmp_path: Path, fake_image: Images, daemon: DockerClient
) -> None:
    with running(fake_image(FAKE_VLLM="ready"), model, tmp_path / "records") as run:
        remove_stale(daemon)
        assert len(labelled(daemon, run.pid)) == 1
        run.send_signal(signal.SIGINT)
        run.wait(40)


def test_the_hubs_links_can_be_served(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "revision"
    shutil.copytree(model, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VLLM="ready"))
    with served(engine, snapshot, tmp_path / "records") as endpoint:
        assert endpoint.deployment.model == str(snapshot)


def test_a_port_is_reached_from_this_machine_alone(
    engine: EngineSpec, model: Path, tmp_path: Path, fake_image: Images
) -> None:
    others = {
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    }
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VLLM="ready"))
    with served(engine, model, tmp_path / "records") as endpoint:
        port = int(endpoint.base_url.rpartition(":")[2])
        for address in others:
            with socket.socket() as visitor:
                visitor.settimeout(2)
                assert visitor.connect_ex((address, port)) != 0


def test_vllms_real_cpu_build_serves_the_canary_in_a_container(
    engine: EngineSpec, exported: Callable[..., Path], tmp_path: Path, serving_image: str
) -> None:
    checkpoint = exported(shipped.canary() / "model")
    engine = dataclasses.replace(engine, image=serving_image, max_model_len=512)
    with served(engine, checkpoint, tmp_path / "records") as endpoint:
        deployment = endpoint.deployment
        # Logprobs take a way through vLLM of their own, which once needed a compiler.
        body = {"model": endpoint.model, "prompt": "Once there was", "max_tokens": 8, "logprobs": 1}
        (choice,) = ask(endpoint, "/v1/completions", body)["choices"]
        assert choice["text"]
        assert len(choice["logprobs"]["token_logprobs"]) == 8
    assert deployment.findings == ()
    assert deployment.exercised == deployment.declared == ("weights:nvfp4", "inputs:nvfp4")
    assert deployment.loaded is not None
    assert deployment.loaded.num_filled == deployment.loaded.num_parameters
