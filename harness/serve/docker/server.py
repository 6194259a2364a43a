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

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Capability, capability_of
from harness.serve.docker.container import (
    ContainerSettings,
    User,
    container_user,
    requested_gpus,
    server_container,
)
from harness.serve.docker.daemon import choose_network, connected, explained, remove_stale
from harness.serve.docker.image import find_image, image_answers, named_image
from harness.serve.docker.owner import this_process
from harness.serve.docker.running import started
from harness.serve.process import kept_records
from harness.serve.readiness import StartLimits, naming_its_death
from harness.serve.vllm.arguments import server_flags
from harness.serve.vllm.endpoint import ServerFacts, endpoint_of
from harness.serve.vllm.observe import clear_reports
from harness.serve.vllm.options import refuse_malformed
from harness.serve.vllm.server import (
    LOG_FILE,
    check_answers,
    check_environment,
    draw_key,
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
        answers, environment = image_answers(client, image), image.environment
        setting = setting_of(engine, directory, environment, answers)
        records = stack.enter_context(kept_records(records))
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
            gpus=requested_gpus(environment.platform, gpus),
        )
        container = server_container(setting, flags := server_flags(setting), site)
        _log.info("serve: vLLM %s in image %s", environment.version, image.name)
        server = stack.enter_context(started(client, container, log_path=records / LOG_FILE))
        length, observed = wait_and_look(
            server, setting, records=site.records, limits=limits or StartLimits()
        )
        place = ServerFacts(
            base_url=server.base_url,
            version=f"{environment.version} (torch {environment.torch}, {image.name})",
            device=observed.device or environment.device,
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
        PrerequisiteError: no daemon, no such image, or a vLLM that is too old.
        UsageError: no image is named, or an `--engine-arg` is not for the user to decide.
    """
    refuse_malformed(engine.arguments)
    image_name = named_image(engine)
    with connected() as client:
        image = find_image(client, image_name)
        place = f"image '{engine.image}'"
        checked = check_environment(engine, image.environment, place=place)
        check_answers(engine, image_answers(client, image), place=place)
    return dataclasses.replace(checked, image=image.id)


def docker_capability(engine: EngineSpec) -> Capability:
    """Return what the vLLM in the engine's image does: as it was seen, or as it says.

    Raises:
        PrerequisiteError: there is no daemon or no such image any more, or its vLLM is too old.
    """
    with connected() as client:
        image = find_image(client, named_image(engine))
        abilities = image_answers(client, image).abilities
    return capability_of(image.environment.version, image.environment.platform, abilities)


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
