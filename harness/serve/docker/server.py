"""The `docker` engine: a folder served by vLLM in a container, and what it really computes.

Arguments, readiness, causes of death and what is observed are those of the `vllm` engine
(harness/serve/vllm): only where the server runs is different.
"""

import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from docker.client import DockerClient

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Demands, capability_of, refuse_unsupported
from harness.models import open_source
from harness.serve.docker.container import (
    ContainerSettings,
    User,
    container_user,
    requested_gpus,
    server_container,
)
from harness.serve.docker.daemon import choose_network, connected, explained, remove_stale
from harness.serve.docker.image import ServingImage, find_image, image_options, named_image
from harness.serve.docker.owner import this_process
from harness.serve.docker.running import started
from harness.serve.vllm.arguments import Setting, server_flags
from harness.serve.vllm.observe import clear_reports
from harness.serve.vllm.options import refuse_malformed, user_flags
from harness.serve.vllm.readiness import StartLimits, naming_its_death
from harness.serve.vllm.server import (
    LOG_FILE,
    ServerFacts,
    check_environment,
    draw_key,
    endpoint_of,
    setting_of,
    wait_and_look,
)
from harness.serve.vllm.variables import REPORT_PREFIX, recorded_arguments

_log = logging.getLogger("harness.serve")
_WRITABLE = "container"
"""Folder inside the records that the container may write to; gone when it has been read."""


@contextmanager
def serve_docker(
    engine: EngineSpec,
    directory: Path,
    *,
    records: Path | None = None,
    gpus: tuple[int, ...] | None = None,
    limits: StartLimits | None = None,
) -> Iterator[Endpoint]:
    """Serve the checkpoint in `directory` from a container until the context ends.

    Args:
        engine: what to serve it with; its image must be on the daemon.
        directory: folder of the checkpoint; the daemon must see it at the same place.
        records: where the log and the load reports are kept; None keeps none.
        gpus: the GPUs that a CUDA image may use; None leaves it to CUDA_VISIBLE_DEVICES, else all.
        limits: how long to wait for it.

    Raises:
        PrerequisiteError: no daemon, no such image, or its vLLM cannot load the checkpoint.
        EngineError: the server failed; the message holds the end of its log.
    """
    image_name = named_image(engine)
    with ExitStack() as stack:
        client = stack.enter_context(connected())
        image = find_image(client, image_name)
        setting = _setting(engine, directory, client, image)
        if records is None:
            records = Path(stack.enter_context(TemporaryDirectory(prefix="harness-docker-")))
        records = records.resolve()
        with explained("be asked for its containers and networks"):
            remove_stale(client)
            network = choose_network(client)
        user = container_user()
        site = ContainerSettings(
            image=image.id,
            network=network,
            user=user,
            records=stack.enter_context(_writable(records, user)),
            labels=this_process().labels(),
            key=draw_key(),
            gpus=requested_gpus(image.environment.platform, gpus),
        )
        flags = server_flags(setting)
        container = server_container(setting, flags, site)
        _log.info("serve: vLLM %s in image %s", image.environment.version, image.name)
        server = stack.enter_context(started(client, container, log_path=records / LOG_FILE))
        length, observed = wait_and_look(
            server, setting, records=site.records, limits=limits or StartLimits()
        )
        place = ServerFacts(
            base_url=server.base_url,
            version=f"{image.environment.version} (torch {image.environment.torch}, {image.name})",
            device=observed.device or image.environment.device,
            log=server.log_path,
            max_model_len=length,
            arguments=recorded_arguments(flags, {**image.variables, **container.environment}),
            key=server.key,
        )
        with naming_its_death(server):
            yield endpoint_of(setting, observed, place)


def check_docker(engine: EngineSpec) -> EngineSpec:
    """Return `engine` with the id of its image and the version of the vLLM in it.

    Raises:
        PrerequisiteError: no daemon, no such image, or a vLLM that harness does not know.
        UsageError: no image is named, or an `--engine-arg` is not for the user to decide.
    """
    refuse_malformed(engine.arguments)
    image_name = named_image(engine)
    with connected() as client:
        image = find_image(client, image_name)
        _flags_of(engine, client, image)
    checked = check_environment(engine, image.environment, place=f"image '{engine.image}'")
    return dataclasses.replace(checked, image=image.id)


def check_docker_serves(engine: EngineSpec, demands: Demands) -> None:
    """Refuse a checkpoint that the vLLM in the engine's image cannot load, before it is made.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    with connected() as client:
        environment = find_image(client, named_image(engine)).environment
    refuse_unsupported(capability_of(environment.version, environment.platform), demands)


def _setting(
    engine: EngineSpec, directory: Path, client: DockerClient, image: ServingImage
) -> Setting:
    flags = _flags_of(engine, client, image)
    source = open_source(str(directory.resolve()))
    return setting_of(engine, source, image.environment, user_flags=flags)


def _flags_of(engine: EngineSpec, client: DockerClient, image: ServingImage) -> tuple[str, ...]:
    """Return the user's flags; the image is asked for its options only where there are any."""
    refuse_malformed(engine.arguments)
    if not engine.arguments:
        return ()
    return user_flags(engine.arguments, image_options(client, image))


def _reports(folder: Path) -> list[Path]:
    found = sorted(folder.glob(f"{REPORT_PREFIX}.rank*.json"))
    return [path for path in found if path.is_file() and not path.is_symlink()]


@contextmanager
def _writable(records: Path, user: User) -> Iterator[Path]:
    """Yield the one folder that the container may write to; its load reports move to `records`.

    The records themselves stay out of its reach: a run's evidence is harness's to write.
    """
    records.mkdir(parents=True, exist_ok=True)
    clear_reports(records)
    folder = records / _WRITABLE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if user.uid != os.getuid():
        os.chown(folder, user.uid, user.gid)
    try:
        yield folder
    finally:
        for report in _reports(folder):
            shutil.copyfile(report, records / report.name, follow_symlinks=False)
        shutil.rmtree(folder)
