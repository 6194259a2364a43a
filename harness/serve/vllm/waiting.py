"""A vLLM process that imports what it runs while there is nothing to serve yet.

Imports take 6 to 10 s of a server's start. What they depend on, the installed vLLM and the
environment, is known before there is a checkpoint; the arguments are told it later. So it starts
while the checkpoint is made or verified. Where it is not what a usual start would be by then, or
has died, it is ended and one is started as ever.
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
from harness.serve.vllm.environment import VllmEnvironment
from harness.serve.vllm.variables import KEY_VARIABLE

_PROGRAM = "harness_vllm.waiting"
_LOG_FILE = ".imports.log.partial"


class WaitingServer:
    """A process that serves once, when it is told what."""

    def __init__(
        self, environment: VllmEnvironment, variables: Mapping[str, str], records: Path
    ) -> None:
        """Start it.

        Args:
            environment: its vLLM.
            variables: its whole environment, the plugin's folder and a key among it.
            records: the folder of the log that it will have; there it writes to a file of its own.
        """
        self._begun_with = environment, _but_for_key(variables)
        self._begun = time.monotonic()
        self.is_spent = False
        """Whether it was told."""
        self.head_start_s = 0.0
        """Seconds of a start that were behind it when it was told, as long as it serves; else 0."""
        with ExitStack() as stack:
            log_path = records / _LOG_FILE
            log_path.unlink(missing_ok=True)
            stack.callback(log_path.unlink, missing_ok=True)
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="harness-waiting-")))
            os.mkfifo(self._folder / "told", 0o600)
            # Open at both ends: neither this nor the other process waits for its opening.
            self._told = os.open(self._folder / "told", os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, self._told)
            self.port = stack.enter_context(reserved_port())
            command = (environment.python, "-m", _PROGRAM, MODULE, str(self._folder))
            key = variables[KEY_VARIABLE]
            self._server = stack.enter_context(
                started(command, variables, port=self.port, log_path=log_path, key=key)
            )
            self._process = stack.pop_all()

    def fits(self, environment: VllmEnvironment, variables: Mapping[str, str]) -> bool:
        """Return whether it still waits, and is what a usual start would be; its key apart."""
        is_same = self._begun_with == (environment, _but_for_key(variables))
        return is_same and not self.is_spent and self._server.has_process()

    @contextmanager
    def told(self, arguments: tuple[str, ...], *, log_path: Path) -> Iterator[KeptProcess]:
        """Let it serve, until the context ends.

        Args:
            arguments: the server's, which listens at `port`.
            log_path: where its log, with what it has written so far, is from now on.
        """
        self.is_spent = True
        with self._process.pop_all():
            self._server.log_path.replace(log_path)
            self._server.log_path = log_path
            (self._folder / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
            self.head_start_s = self._seconds()
            os.write(self._told, b"1")
            try:
                yield self._server
            finally:
                self.head_start_s = 0.0

    def end(self) -> None:
        """End it, unless it serves or has; nothing of it is left then."""
        self._process.close()

    def _seconds(self) -> float:
        passed = time.monotonic() - self._begun
        with suppress(OSError, ValueError):  # it is at its imports yet
            return min(passed, float((self._folder / "seconds").read_text(encoding="ascii")))
        return passed


def _but_for_key(variables: Mapping[str, str]) -> Mapping[str, str]:
    return {**variables, KEY_VARIABLE: ""}
