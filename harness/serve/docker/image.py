"""Which image serves, and which vLLM is in it: asked of the image itself, before anything runs.

A tag may mean another image tomorrow, so whatever was typed is resolved to the id of the image
that is here now, and it is the id that is recorded and started. Nothing is pulled: a run must not
begin with a download of gigabytes that nobody asked for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from docker.client import DockerClient
from docker.errors import APIError, ImageNotFound

from harness.artifacts import EngineSpec
from harness.engines import CAPABILITIES
from harness.errors import PrerequisiteError, UsageError
from harness.serve.docker.container import Bind, Container, container_user, requested_gpus
from harness.serve.docker.daemon import first_line
from harness.serve.docker.owner import this_process
from harness.serve.docker.running import remove
from harness.serve.vllm.environment import PROBE, VllmEnvironment
from harness.serve.vllm.options import Options, read_options, remembered

_PROBE_INSIDE = "/harness/probe.py"
_BUILD = "docker build -f docker/serve.cpu.Dockerfile -t NAME ."


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingImage:
    """An image that holds a vLLM which harness knows."""

    id: str
    name: str
    """By digest where it came from a registry, else its id: what another machine could ask for."""
    variables: Mapping[str, str]
    """Of its own environment."""
    environment: VllmEnvironment


def named_image(engine: EngineSpec) -> str:
    """Return the image that `engine` names.

    Raises:
        UsageError: it names none.
    """
    if engine.image:
        return engine.image
    message = f"--engine docker needs --image with a digest, id or name. Make one: {_BUILD}"
    raise UsageError(message)


def find_image(client: DockerClient, name: str) -> ServingImage:
    """Return the image that `name` (a digest, an id or a tag) means on this daemon.

    Raises:
        UsageError: it is no name of an image.
        PrerequisiteError: it is not here, has no vLLM, or one that harness does not know.
    """
    try:
        found = client.images.get(name)
    except ImageNotFound as error:
        message = (
            f"there is no image '{name}' on this docker daemon. Fetch it with docker pull {name}, "
            f"or make one: {_BUILD}"
        )
        raise PrerequisiteError(message) from error
    except APIError as error:
        message = f"'{name}' is no image: {first_line(error)}. Give a digest, an id or a name."
        raise UsageError(message) from error
    variables = (found.attrs.get("Config") or {}).get("Env") or ()
    digests = found.attrs.get("RepoDigests") or []
    image_id = str(found.id)
    return ServingImage(
        id=image_id,
        name=str(digests[0]) if digests else image_id,
        variables=dict(variable.split("=", 1) for variable in variables if "=" in variable),
        environment=_ask(client, image_id, name),
    )


def _ask(client: DockerClient, image_id: str, name: str) -> VllmEnvironment:
    """Return what is in the image; a CUDA build is asked once more with GPUs, for their names."""
    environment = _probe(client, image_id, name, gpus=())
    known = {(c.version, c.platform) for c in CAPABILITIES}
    if (environment.version, environment.platform) not in known:
        listed = ", ".join(f"{version} ({platform})" for version, platform in sorted(known))
        message = (
            f"image '{name}' holds vLLM {environment.version} ({environment.platform}), which "
            f"harness does not know. Known: {listed}. Take an image of one of these."
        )
        raise PrerequisiteError(message)
    gpus = requested_gpus(environment.platform, None)
    return _probe(client, image_id, name, gpus=gpus) if gpus else environment


def _probe(
    client: DockerClient, image_id: str, name: str, *, gpus: tuple[str, ...]
) -> VllmEnvironment:
    said = _probed(client, image_id, name, gpus=gpus)
    try:
        found = json.loads(said)
        return VllmEnvironment(**{**found, "python": "python3", "gpus": tuple(found["gpus"])})
    except (ValueError, TypeError, KeyError) as error:
        message = f"no vLLM was found in image '{name}': its python3 answered {said[:200]!r}."
        raise PrerequisiteError(message) from error


def image_options(client: DockerClient, image: ServingImage) -> Options:
    """Return the options of the image's vLLM, by its own parser.

    Raises:
        PrerequisiteError: it cannot be asked.
    """
    gpus = requested_gpus(image.environment.platform, None)

    def ask() -> str:
        return _probed(client, image.id, image.name, "--options", gpus=gpus).decode()

    said = remembered(ask, image.id, PROBE.read_text(encoding="utf-8"))
    return read_options(said, place=f"vLLM {image.environment.version} in image '{image.name}'")


def _probed(
    client: DockerClient, image_id: str, name: str, *arguments: str, gpus: tuple[str, ...]
) -> bytes:
    """Run the probe in the image, with no network and nothing else in reach.

    Raises:
        PrerequisiteError: it cannot be run, or finds no vLLM.
    """
    container = Container(
        image=image_id,
        command=("python3", "-I", _PROBE_INSIDE, *arguments),
        environment={},
        binds=(Bind(source=str(PROBE), target=_PROBE_INSIDE),),
        network=None,
        user=container_user(),
        gpus=gpus,
        labels=this_process().labels(),
    )
    try:
        status, said = _output(client, container)
    except APIError as error:
        raise _refused(name, gpus, first_line(error)) from error
    if status != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        message = f"no vLLM was found in image '{name}': {lines[-1] if lines else status}."
        raise PrerequisiteError(message)
    return said


def _output(client: DockerClient, container: Container) -> tuple[int, bytes]:
    """Run a container to its end; return its status and what it printed, errors if it failed."""
    created = client.containers.create(**container.options())
    try:
        created.start()
        status = int(created.wait()["StatusCode"])
        # Asked for when it has ended: a log that is followed may lose its end.
        return status, bytes(created.logs(stdout=status == 0, stderr=status != 0))
    finally:
        remove(created)


def _refused(name: str, gpus: tuple[str, ...], reason: str) -> PrerequisiteError:
    if gpus:
        fix = "Install nvidia-container-toolkit on the daemon's machine and restart the daemon."
        return PrerequisiteError(f"docker cannot give GPUs to image '{name}': {reason}. {fix}")
    fix = "Harness's own folders must be in reach of the daemon, at the same place as here."
    return PrerequisiteError(f"docker cannot run image '{name}': {reason}. {fix}")
