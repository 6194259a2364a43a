"""What a container is created with; nothing is started here."""

import dataclasses
import os
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from harness.engines import capability_of, read_demands
from harness.errors import PrerequisiteError
from harness.models import open_source
from harness.serve.docker.container import (
    ALL_GPUS,
    Container,
    ContainerSettings,
    Network,
    User,
    checkpoint_binds,
    container_user,
    requested_gpus,
    server_container,
)
from harness.serve.docker.owner import this_process
from harness.serve.vllm.arguments import PLUGIN, Setting, server_flags

STRANGER = User(uid=54321, gid=54321)


def setting_of(engine: EngineSpec, model: Path) -> Setting:
    source = open_source(str(model))
    return Setting(
        engine=engine,
        source=source,
        demands=read_demands(source),
        capability=capability_of("0.32.0", "cpu"),
        has_flashinfer=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> ContainerSettings:
    return ContainerSettings(
        image="sha256:0",
        network=Network(published=False, port=4321),
        user=User(uid=1000, gid=1000),
        records=tmp_path / "records",
        labels={"harness.run": "r"},
        key="drawn",
    )


@pytest.fixture
def container(engine: EngineSpec, model: Path, site: ContainerSettings) -> Container:
    setting = setting_of(engine, model)
    return server_container(setting, server_flags(setting), site)


def test_the_server_can_do_nothing_but_serve(container: Container) -> None:
    options = container.options()
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges"]
    assert options["read_only"] is True
    assert options["user"] == "1000:1000"
    assert "privileged" not in options
    assert "ipc_mode" not in options
    assert "pid_mode" not in options


def test_checkpoint_and_plugin_are_read_only_and_only_the_records_are_not(
    container: Container, model: Path, tmp_path: Path
) -> None:
    seen = {bind.source: (bind.target, bind.read_only) for bind in container.binds}
    assert seen == {
        str(model): ("/harness/checkpoint", True),
        str(PLUGIN): ("/harness/plugin", True),
        str(tmp_path / "records"): ("/harness/records", False),
    }


def test_the_server_is_started_as_the_process_engine_starts_it(
    container: Container, engine: EngineSpec, model: Path
) -> None:
    flags = server_flags(setting_of(engine, model))
    assert container.command[:3] == ("python3", "-m", "vllm.entrypoints.openai.api_server")
    assert container.command[-len(flags) :] == flags
    assert container.environment["PYTHONPATH"] == "/harness/plugin"
    assert container.environment["HARNESS_LOAD_REPORT"] == "/harness/records/load_report"


def test_nothing_of_harness_environment_reaches_the_server(
    engine: EngineSpec, model: Path, site: ContainerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    setting = setting_of(engine, model)
    container = server_container(setting, server_flags(setting), site)
    assert "secret" not in repr(container.options())


def test_the_key_is_in_the_environment_and_in_no_argument_or_message(
    container: Container, site: ContainerSettings
) -> None:
    assert container.environment["VLLM_API_KEY"] == "drawn"
    assert "drawn" not in " ".join(container.command)
    assert "drawn" not in repr(container) + repr(site)


def test_without_a_bridge_the_server_itself_listens_on_the_local_address_alone(
    container: Container,
) -> None:
    options = container.options()
    assert options["network_mode"] == "host"
    assert "ports" not in options
    assert container.command[container.command.index("--host") + 1] == "127.0.0.1"
    assert container.command[container.command.index("--port") + 1] == "4321"


def test_a_published_port_is_published_on_the_local_address_alone(
    engine: EngineSpec, model: Path, site: ContainerSettings
) -> None:
    site = dataclasses.replace(site, network=Network(published=True, port=8000))
    setting = setting_of(engine, model)
    options = server_container(setting, server_flags(setting), site).options()
    assert options["ports"] == {"8000/tcp": ("127.0.0.1", None)}
    assert "network_mode" not in options


def test_a_container_without_a_network_has_none(container: Container) -> None:
    options = dataclasses.replace(container, network=None).options()
    assert options["network_mode"] == "none"
    assert "ports" not in options


def test_gpus_are_requested_for_a_cuda_build_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert requested_gpus("cpu", (0, 1)) == ()
    assert requested_gpus("cuda", (2, 3)) == ("2", "3")
    assert requested_gpus("cuda", None) == ALL_GPUS
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-7")
    assert requested_gpus("cuda", None) == ("1", "GPU-7")


@pytest.mark.parametrize(
    ("gpus", "asked"),
    [
        ((), None),
        (ALL_GPUS, [{"Count": -1, "DeviceIDs": []}]),
        (("0", "3"), [{"Count": 0, "DeviceIDs": ["0", "3"]}]),
    ],
)
def test_gpus_are_requested_as_docker_asks_for_them(
    gpus: tuple[str, ...], asked: list[dict[str, object]] | None, container: Container
) -> None:
    options = dataclasses.replace(container, gpus=gpus).options()
    rest = {"Driver": "", "Capabilities": [["gpu"]], "Options": {}}
    assert options.get("device_requests") == (asked and [{**rest, **one} for one in asked])


def test_links_that_lead_out_of_the_folder_are_bound_file_by_file(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    (blobs / "abc").write_bytes(b"weights")
    (folder / "model.safetensors").symlink_to("../blobs/abc")
    (folder / "config.json").write_text("{}", encoding="ascii")
    seen = {bind.target: bind.source for bind in checkpoint_binds(folder)}
    assert seen == {
        "/harness/checkpoint/config.json": str(folder / "config.json"),
        "/harness/checkpoint/model.safetensors": str(blobs / "abc"),
    }


def test_a_checkpoint_that_the_container_cannot_read_is_refused_with_the_command(
    engine: EngineSpec, model: Path, site: ContainerSettings
) -> None:
    (model / "model.safetensors").chmod(0o600)
    setting = setting_of(engine, model)
    site = dataclasses.replace(site, user=STRANGER)
    with pytest.raises(PrerequisiteError, match=r"'.*model\.safetensors' .*chmod -R a\+rX"):
        server_container(setting, server_flags(setting), site)


def test_the_container_never_runs_as_root() -> None:
    user = container_user()
    assert user.uid != 0
    assert user.uid in (os.getuid(), 65534)


def test_labels_say_whose_container_it_is() -> None:
    first, second = this_process().labels(), this_process().labels()
    assert first["harness.run"] != second["harness.run"]
    assert first["harness.owner.pid"] == str(os.getpid())
