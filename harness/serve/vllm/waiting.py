"""A vLLM process that imports what it runs while there is nothing to serve yet.

Imports take 7 to 10 s of a server's start. What they depend on, the environment, is known before
there is a checkpoint; the arguments come later, through a pipe. So it starts while the checkpoint
is made or verified. Where it is not the process that is wanted in the end, because the server has
its device to itself by then or the process has died, it is ended and one is started as ever.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.serve.process import KeptProcess, reserved_port, started
from harness.serve.vllm.arguments import MODULE
from harness.serve.vllm.variables import KEY_VARIABLE

_PROGRAM = "harness_vllm.waiting"
_LOG_FILE = "imports.log"


class WaitingServer:
    """A process that serves once, when it is told what."""

    def __init__(self, python: str, variables: Mapping[str, str]) -> None:
        """Start it.

        Args:
            python: of vLLM's environment.
            variables: its whole environment, the plugin's folder and a key among it.
        """
        self.head_start_s = 0.0
        """Seconds of the server's start that were behind it when it was told; 0 until then."""
        self._variables = variables
        self._begun = time.monotonic()
        with ExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="harness-waiting-"))
            self._pipe = Path(folder) / "told"
            os.mkfifo(self._pipe, 0o600)
            # Open at both ends: neither this nor the other process waits for its opening.
            self._told = os.open(self._pipe, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, self._told)
            self.port = stack.enter_context(reserved_port())
            command = (python, "-m", _PROGRAM, MODULE, str(self._pipe))
            log_path, key = Path(folder) / _LOG_FILE, variables[KEY_VARIABLE]
            self._server = stack.enter_context(
                started(command, variables, port=self.port, log_path=log_path, key=key)
            )
            self._process = stack.pop_all()
        self._is_spent = False

    def fits(self, variables: Mapping[str, str]) -> bool:
        """Return whether it still waits, in this environment; the key may be another."""
        ours = {**self._variables, KEY_VARIABLE: ""}
        is_same = ours == {**variables, KEY_VARIABLE: ""}
        return is_same and not self._is_spent and self._server.is_alive()

    @contextmanager
    def told(self, arguments: tuple[str, ...], *, log_path: Path) -> Iterator[KeptProcess]:
        """Let it serve, until the context ends.

        Args:
            arguments: the server's, which listens at `port`.
            log_path: what it has printed and will print is added to this file.
        """
        self._is_spent, self.head_start_s = True, self._seconds()
        with self._process.pop_all():
            with log_path.open("ab") as log:
                log.write(self._server.log_path.read_bytes())
            self._server.log_path = log_path
            order = {"arguments": arguments, "log": str(log_path)}
            os.write(self._told, json.dumps(order).encode() + b"\n")
            yield self._server

    def end(self) -> None:
        """End it, unless it serves or has; nothing of it is left then."""
        self._is_spent = True
        self._process.close()

    def _seconds(self) -> float:
        passed = time.monotonic() - self._begun
        with suppress(OSError, ValueError):  # it is at its imports yet
            return min(passed, float(Path(f"{self._pipe}.s").read_text(encoding="ascii")))
        return passed
