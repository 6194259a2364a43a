"""A container from its creation to its removal, whatever happens in between.

On every ordinary way out, an exception and Ctrl-C among them, the context stops the container and
removes it. A guardian (guardian.py) does so where this process is killed.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from docker.client import DockerClient
from docker.errors import APIError, NotFound
from docker.models import containers

from harness.errors import EngineError
from harness.kept import blot_out
from harness.serve.docker.container import LOCALHOST, Container
from harness.serve.docker.daemon import FAILURES, explained, first_line
from harness.serve.docker.owner import RUN_LABEL
from harness.serve.listening import listeners
from harness.serve.process import taken
from harness.serve.vllm.variables import KEY_VARIABLE, passed_on

GRACE_SECONDS = 15
"""What a server gets between SIGTERM and SIGKILL."""
_GUARDIAN = Path(__file__).with_name("guardian.py")
_KILLED = 128 + 9
_REMOVAL_SECONDS = 60
_DRAIN_SECONDS = 5
_GUARDIAN_SECONDS = 15
_POLL_SECONDS = 0.1
_DONE = b"."


class RunningContainer:
    """A server in a container; `stop` may be called twice."""

    def __init__(
        self, container: containers.Container, *, port: int, log_path: Path, key: str
    ) -> None:
        self._container = container
        self._port = port
        self.key = key
        self.base_url = f"http://{LOCALHOST}:{port}"
        self.log_path = log_path
        # A daemon thread: it ends with the container, and must not keep harness from ending.
        self._log = threading.Thread(target=self._copy_log, daemon=True)
        self._log.start()

    def is_alive(self) -> bool:
        """Return whether the container runs; once it does not, its log is complete.

        Raises:
            EngineError: the daemon does not answer any more.
        """
        if self.exit_code() is None:
            return True
        self._log.join(_DRAIN_SECONDS)
        return False

    def is_listening(self) -> bool:
        """Return whether nobody but the container, or docker for it, listens on its port.

        docker publishes a port by a process of its own or by a rule of the kernel, which no list
        of sockets shows; either way it has taken the port, or the container would not run.

        Raises:
            EngineError: somebody else listens, or the daemon does not answer any more.
        """
        if not self.is_alive():
            return False
        config = self._container.attrs["Config"]["User"].partition(":")[0]
        users = {0, os.getuid()} | ({int(config)} if config.isdecimal() else set())
        for found in listeners(self._port):
            if found.uid not in users:
                raise taken(self._port, found.owner())
        return True

    def exit_code(self) -> int | None:
        """Return the server's status; None while it runs.

        Raises:
            EngineError: the daemon does not answer any more.
        """
        with explained("look after the server's container"):
            try:
                self._container.reload()
            except NotFound:
                return _KILLED  # somebody has removed it
        state = self._container.attrs["State"]
        return int(state["ExitCode"]) if state["Status"] in {"exited", "dead"} else None

    def stop(self) -> None:
        """End the server and remove its container; return when it is gone.

        Raises:
            EngineError: the daemon cannot remove it.
        """
        with explained(f"remove container {self._container.short_id}"):
            with contextlib.suppress(NotFound):
                self._container.stop(timeout=GRACE_SECONDS)
                self._log.join(_DRAIN_SECONDS)
            remove(self._container)

    def _copy_log(self) -> None:
        with self.log_path.open("ab", buffering=0) as file:
            try:
                for part in self._container.logs(stream=True, follow=True):
                    file.write(part)
                # A log that is followed may lose its end when the container ends.
                whole = self._container.logs()
                file.write(whole[file.tell() :])
            except NotFound:
                return  # removed by now
            except FAILURES as error:
                file.write(f"harness: the log ends here: {first_line(error)}\n".encode())


@contextmanager
def started(
    client: DockerClient, container: Container, *, log_path: Path
) -> Iterator[RunningContainer]:
    """Run a container that has a network as long as the context lasts; its log goes to a file.

    Raises:
        EngineError: the daemon cannot start or remove it.
    """
    log_path.unlink(missing_ok=True)
    with _guarded(container.labels[RUN_LABEL]) as dismiss_guardian:
        with explained("create the server's container"):
            created = client.containers.create(**container.options())
        try:
            with explained("start the server's container"):
                created.start()
                port = _port(created, container)
            key = container.environment[KEY_VARIABLE]
            server = RunningContainer(created, port=port, log_path=log_path, key=key)
            try:
                yield server
            finally:
                server.stop()
                blot_out(key, log_path)
        finally:
            with explained(f"remove container {created.short_id}"):
                remove(created)
            dismiss_guardian()


def remove(container: containers.Container) -> None:
    """Remove a container by force and return when it is gone; gone already is as good.

    Raises:
        EngineError: it is still there after a while.
        APIError: the daemon refuses.
    """
    give_up = time.monotonic() + _REMOVAL_SECONDS
    while time.monotonic() < give_up:
        try:
            container.remove(force=True, v=True)
            container.reload()
        except NotFound:
            return
        except APIError as error:
            # Conflict: it is being removed, by somebody else or by the call before.
            if not error.is_client_error():
                raise
        time.sleep(_POLL_SECONDS)
    message = (
        f"container {container.short_id} is still there after {_REMOVAL_SECONDS} s. "
        f"Type docker rm -f {container.short_id}."
    )
    raise EngineError(message)


@contextmanager
def _guarded(run: str) -> Iterator[Callable[[], None]]:
    """Have the containers of `run` removed should this process be killed inside.

    Yields:
        What is to be called once they are removed; without it the guardian looks for itself.

    Raises:
        EngineError: the guardian cannot be started.
    """
    guardian = subprocess.Popen(
        # -P: what lies beside the script must not hide the packages that it imports.
        [sys.executable, "-P", str(_GUARDIAN), run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # nothing is left to be written when it is closed
        start_new_session=True,
        env=passed_on() | {n: v for n, v in os.environ.items() if n.startswith("DOCKER_")},
        cwd="/",
    )
    if guardian.stdin is None or guardian.stdout is None:
        raise AssertionError  # it was started with pipes
    pipe = guardian.stdin

    def dismiss() -> None:
        with contextlib.suppress(BrokenPipeError):  # it was killed, and there is nothing to do
            pipe.write(_DONE)

    try:
        if guardian.stdout.readline().strip() != b"ready":
            message = "the guardian of the container did not start; its error is above."
            raise EngineError(message)
        yield dismiss
    finally:
        pipe.close()
        guardian.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guardian.wait(_GUARDIAN_SECONDS)


def _port(created: containers.Container, container: Container) -> int:
    """Return the port of this machine at which the server will answer."""
    network = container.network
    if network is None:
        raise AssertionError  # a server without a network answers nobody
    if not network.published:
        return network.port
    created.reload()
    bindings = created.attrs["NetworkSettings"]["Ports"].get(f"{network.port}/tcp")
    if not bindings:
        status = created.attrs["State"]["Status"]
        message = f"docker published no port for the server, whose container is {status}."
        raise EngineError(message)
    return int(bindings[0]["HostPort"])
