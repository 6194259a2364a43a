"""Which image serves, and which vLLM is in it: asked of the image itself, before anything runs.

A tag may mean another image tomorrow, so whatever was typed is resolved to the id of the image
that is here now, and it is the id that is recorded and started. Nothing is pulled: a run must not
begin with a download of gigabytes that nobody asked for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from docker.client import DockerClient
from docker.errors import APIError, ImageNotFound

from harness.artifacts import EngineSpec
from harness.engines import capability_of
from harness.errors import PrerequisiteError, UsageError
from harness.serve.docker.container import (
    PLUGIN_INSIDE,
    Bind,
    Container,
    container_user,
    requested_gpus,
)
from harness.serve.docker.daemon import first_line
from harness.serve.docker.owner import this_process
from harness.serve.docker.running import remove
from harness.serve.vllm.answers import (
    DECLARATIONS,
    QUESTIONS,
    Answers,
    Said,
    read_answers,
    remembered,
)
from harness.serve.vllm.arguments import PLUGIN
from harness.serve.vllm.environment import PROBE, VllmEnvironment

_PROBE_INSIDE = "/harness/probe.py"
_QUESTIONS_INSIDE = "/harness/questions.py"
_BUILD = "docker build -f docker/serve.cpu.Dockerfile -t NAME ."


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingImage:
    """An image that holds a vLLM."""

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
        PrerequisiteError: it is not here, has no vLLM, or one that is too old.
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
    capability_of(environment.version, environment.platform)  # refuses what is too old
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


def image_answers(client: DockerClient, image: ServingImage) -> Answers:
    """Return what the image's vLLM says of itself; asked once, and then remembered.

    Raises:
        PrerequisiteError: the container cannot be run.
    """
    gpus = requested_gpus(image.environment.platform, None)

    def ask() -> Said:
        binds = (
            Bind(source=str(QUESTIONS), target=_QUESTIONS_INSIDE),
            Bind(source=str(PLUGIN), target=PLUGIN_INSIDE),
        )
        command = ("python3", "-I", _QUESTIONS_INSIDE, PLUGIN_INSIDE, DECLARATIONS)
        script = _Script(command, binds, gpus)
        status, said, errors = _run(client, image.id, image.name, script)
        return Said.of(status, said, errors)

    return read_answers(remembered(ask, image.id, *image.environment.gpus))


class _Script(NamedTuple):
    """What is run in an image, to be told something."""

    command: tuple[str, ...]
    binds: tuple[Bind, ...]
    gpus: tuple[str, ...]


def _probed(client: DockerClient, image_id: str, name: str, *, gpus: tuple[str, ...]) -> str:
    """Run the probe in the image.

    Raises:
        PrerequisiteError: it cannot be run, or finds no vLLM.
    """
    binds = (Bind(source=str(PROBE), target=_PROBE_INSIDE),)
    script = _Script(("python3", "-I", _PROBE_INSIDE), binds, gpus)
    status, said, errors = _run(client, image_id, name, script)
    if status != 0:
        lines = errors.strip().splitlines()
        message = f"no vLLM was found in image '{name}': {lines[-1] if lines else status}."
        raise PrerequisiteError(message)
    return said


def _run(client: DockerClient, image_id: str, name: str, script: _Script) -> tuple[int, str, str]:
    """Run a script of ours in the image, with no network and nothing else in reach.

    Returns:
        Its status, what it printed, and its errors.

    Raises:
        PrerequisiteError: it cannot be run.
    """
    container = Container(
        image=image_id,
        command=script.command,
        environment={},
        binds=script.binds,
        network=None,
        user=container_user(),
        gpus=script.gpus,
        labels=this_process().labels(),
    )
    try:
        return _output(client, container)
    except APIError as error:
        raise _refused(name, script.gpus, first_line(error)) from error


def _output(client: DockerClient, container: Container) -> tuple[int, str, str]:
    created = client.containers.create(**container.options())
    try:
        created.start()
        status = int(created.wait()["StatusCode"])
        # Asked for when it has ended: a log that is followed may lose its end.
        said, errors = (
            bytes(created.logs(stdout=is_out, stderr=not is_out)).decode(errors="replace")
            for is_out in (True, False)
        )
        return status, said, errors
    finally:
        remove(created)


def _refused(name: str, gpus: tuple[str, ...], reason: str) -> PrerequisiteError:
    if gpus:
        fix = "Install nvidia-container-toolkit on the daemon's machine and restart the daemon."
        return PrerequisiteError(f"docker cannot give GPUs to image '{name}': {reason}. {fix}")
    fix = "Harness's own folders must be in reach of the daemon, at the same place as here."
    return PrerequisiteError(f"docker cannot run image '{name}': {reason}. {fix}")
