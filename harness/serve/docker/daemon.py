"""The docker daemon: reached as the docker command reaches it (DOCKER_HOST and the like)."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

import requests
from docker.client import DockerClient, from_env
from docker.errors import APIError, DockerException, NotFound

from harness.errors import EngineError, PrerequisiteError
from harness.serve.docker.container import PORT_INSIDE, Network
from harness.serve.docker.owner import RUN_LABEL, is_stale, this_process
from harness.serve.process import reserved_port

_log = logging.getLogger("harness.serve")
FAILURES = (DockerException, requests.RequestException)
"""What the SDK raises; errors of the connection pass through it as they are."""
_TIMEOUT_SECONDS = 600
"""Of one request: some storage drivers copy the whole image when a container is created."""
_DEFAULT_BRIDGE = "bridge"


@contextmanager
def connected() -> Iterator[DockerClient]:
    """Yield a client of the daemon.

    Raises:
        PrerequisiteError: none answers.
    """
    try:
        client = from_env(timeout=_TIMEOUT_SECONDS)
        client.ping()
    except FAILURES as error:
        message = (
            f"no docker daemon answers: {first_line(error)}. Start it, let this user talk to it "
            "('docker info' must work), or name it in DOCKER_HOST."
        )
        raise PrerequisiteError(message) from error
    with closing(client):
        yield client


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the SDK raises inside into one clear line.

    Raises:
        EngineError: with what was being done.
    """
    try:
        yield
    except FAILURES as error:
        message = f"docker could not {doing}: {first_line(error)}"
        raise EngineError(message) from error


def first_line(error: BaseException) -> str:
    """Return what the daemon said, without the request that it answered."""
    said = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    lines = str(said).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def choose_network(client: DockerClient) -> Network:
    """Return how a server is reached: a published port where there is a bridge, else directly."""
    if any(found.name == _DEFAULT_BRIDGE for found in client.networks.list()):
        return Network(published=True, port=PORT_INSIDE)
    # Not held until the server has it: the container's user is another, whom Linux would refuse.
    with reserved_port() as port:
        return Network(published=False, port=port)


def remove_stale(client: DockerClient) -> None:
    """Remove containers of runs on this machine that were killed together with their guardian."""
    here = this_process()
    for container in client.containers.list(
        all=True, filters={"label": RUN_LABEL}, ignore_removed=True
    ):
        if is_stale(container.labels, here):
            _log.info("serve: removing container %s of a run that is dead", container.short_id)
            try:
                container.remove(force=True, v=True)
            except NotFound:
                continue
            except APIError as error:
                # Somebody else removes it at this moment.
                if error.status_code != requests.codes.conflict:
                    raise
