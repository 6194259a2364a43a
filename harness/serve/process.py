"""A server as a process: started under two keepers, and gone when the context ends.

Nothing is left behind whatever happens: keeper.py says how. Here is harness's end of it: hold the
pipe, wait on the way out until every process of the server's session is gone and its port is
free, and only then go on, so that the next server finds the memory and the GPU it needs.

Nobody else is asked, and nobody else is answered: the socket that listens is proven to be the
server's, and requests must bring a key that is drawn for this one server and kept nowhere.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import psutil

from harness.errors import EngineError
from harness.kept import AT_ONCE, GRACE_SECONDS, OUTER_EXTRA_SECONDS, blot_out, start_kept
from harness.serve.listening import foreign, listeners

LOCALHOST = "127.0.0.1"
_POLL_SECONDS = 0.05


class RunningServer(Protocol):
    """A server that was started, as a process or in a container."""

    @property
    def base_url(self) -> str:
        """Such as `http://127.0.0.1:8123`, without `/v1`."""

    @property
    def log_path(self) -> Path:
        """File that the server's output goes to."""

    @property
    def key(self) -> str:
        """API key that its requests must bring."""

    def is_alive(self) -> bool:
        """Return whether it still runs."""

    def is_listening(self) -> bool:
        """Return whether it listens at its URL.

        Raises:
            EngineError: somebody else does.
        """

    def exit_code(self) -> int | None:
        """Return its status, 128 + signal where one ended it; None while it runs."""

    def stop(self) -> None:
        """End it, and return when nothing of it is left."""


class KeptProcess:
    """A server process with its keepers; `stop` may be called twice."""

    def __init__(
        self, keeper: subprocess.Popen[bytes], *, log_path: Path, port: int, key: str
    ) -> None:
        self._keeper = keeper
        self._port = port
        self.key = key
        self.log_path = log_path
        self.base_url = f"http://{LOCALHOST}:{port}"
        self.session: int | None = None
        self._is_taken = False
        """Whether somebody else was seen to listen on the port."""
        self._has_listened = False
        """Whether it was seen to listen; what only loads has nothing to finish."""

    def read_session(self) -> None:
        """Wait until the server's process exists; its id is its session's."""
        if self._keeper.stdout is None:
            raise AssertionError  # it was started with a pipe
        word, _, number = self._keeper.stdout.readline().decode().strip().partition(" ")
        if word == "pid" and number.isdecimal():
            self.session = int(number)

    def is_alive(self) -> bool:
        """Return whether the keeper, and so the server, still runs."""
        return self._keeper.poll() is None

    def has_process(self) -> bool:
        """Return whether the server's own process runs, now: its keepers look only now and then."""
        return self.session is not None and self.session in self._left()

    def is_listening(self) -> bool:
        """Return whether the server listens on its port.

        Raises:
            EngineError: somebody else does.
        """
        found = listeners(self._port)
        stranger = foreign(found, self._left())
        if stranger is not None and stranger in listeners(self._port):
            self._is_taken = True
            raise taken(self._port, stranger.owner())
        is_listening = bool(found) and stranger is None
        self._has_listened |= is_listening
        return is_listening

    def exit_code(self) -> int | None:
        """Return the server's status; None while it runs."""
        status = self._keeper.poll()
        return status if status is None or status >= 0 else 128 - status

    def stop(self) -> None:
        """End the tree of processes; return when none is left and the port is free.

        Raises:
            EngineError: a process cannot be ended, which only the kernel can cause.
        """
        with contextlib.suppress(BrokenPipeError):
            self._let_go()
        # On time the keepers do it all; what follows is for keepers that were killed themselves.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(GRACE_SECONDS + 2 * OUTER_EXTRA_SECONDS)
        give_up = time.monotonic() + GRACE_SECONDS
        while (left := self._left()) or not (self._is_taken or _is_free(self._port)):
            if time.monotonic() >= give_up:
                message = (
                    f"processes {left} of the server, or its port {self._port}, are still there "
                    "after SIGKILL. Look at them with 'ps' before the next run."
                )
                raise EngineError(message)
            for pid in left if time.monotonic() > give_up - GRACE_SECONDS / 2 else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

    def _let_go(self) -> None:
        """Close the pipes, which ends the server; one that has only loaded so far at once."""
        told, said = self._keeper.stdin, self._keeper.stdout
        if said is not None:
            said.close()
        if told is not None and not told.closed:
            with told:
                told.write(b"" if self._has_listened else AT_ONCE)

    def _left(self) -> list[int]:
        return [] if self.session is None else processes_of_session(self.session)


def taken(port: int, owner: str) -> EngineError:
    """Return the error that names who listens in the server's place."""
    return EngineError(
        f"port {port} was chosen for the server, and {owner} listens there. Nothing was asked of "
        "it. Type the command again; where it happens again, look at that process."
    )


@contextmanager
def kept_records(records: Path | None) -> Iterator[Path]:
    """Yield the folder, made where it is missing, that a server's records go to.

    Args:
        records: as typed; None keeps none, and the folder is gone in the end.
    """
    with contextlib.ExitStack() as stack:
        if records is None:
            records = Path(stack.enter_context(TemporaryDirectory(prefix="harness-records-")))
        records = records.resolve()
        records.mkdir(parents=True, exist_ok=True)
        yield records


@contextmanager
def started(
    command: tuple[str, ...], environment: Mapping[str, str], *, port: int, log_path: Path, key: str
) -> Iterator[KeptProcess]:
    """Start `command` under keepers; its output goes to `log_path`.

    Args:
        command: the server's.
        environment: the whole of it.
        port: where it will listen.
        log_path: what it prints is added to this file.
        key: what its requests must bring; the log is kept clean of it.

    It runs in an empty folder: a `.env` or a module that lies where harness was started, or in
    the run directory, is nothing that it should find.

    Raises:
        EngineError: it could not be ended.
    """
    with TemporaryDirectory(prefix="harness-server-", ignore_cleanup_errors=True) as empty:
        process = start_kept(
            command, environment, folder=Path(empty), log=log_path, stdout=subprocess.PIPE
        )
        server = KeptProcess(process, log_path=log_path, port=port, key=key)
        try:
            server.read_session()
            yield server
        finally:
            server.stop()
            blot_out(key, server.log_path)


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a free port of this machine, kept from others as long as the context lasts.

    The socket is bound and does not listen, so Linux lets the server bind the same port beside
    it, since both say SO_REUSEADDR, and gives it all connections.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOCALHOST, 0))
        yield int(holder.getsockname()[1])


def processes_of_session(session: int) -> list[int]:
    """Return the processes of a session that still run."""
    found: list[int] = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            is_gone = process.info["status"] in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            if os.getsid(process.info["pid"]) == session and not is_gone:
                found.append(process.info["pid"])
    return found


def _is_free(port: int) -> bool:
    """Return whether nobody listens there; connections that ebb away do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as visitor:
        visitor.settimeout(1)
        return visitor.connect_ex((LOCALHOST, port)) != 0
