"""Do in a child process, under limits of work and memory, what others' files ask for.

A regular expression may backtrack for years and a template may loop for ever, or ask for all
memory; nothing within a process can stop either. The child is ended by the system once it has
worked too long, whatever the wall clock says; a loaded machine makes nobody's file bad.
"""

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Literal

from harness.reading import bounds

_SCRIPT = Path(__file__).with_name("child.py")


class TooMuchWorkError(Exception):
    """What was asked for needs more work, memory or text than its bound."""


class LimitedChild:
    """A child process that begins at the first request, and again after one that it died of."""

    def __init__(self, kind: Literal["match", "render"], *, cpu_s: int) -> None:
        """Describe it.

        Args:
            kind: what it does (`child`).
            cpu_s: work that one request may take, in seconds of a processor.
        """
        self._kind = kind
        self._cpu_s = cpu_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, **request: object) -> Any:  # noqa: ANN401 -- what the child answers
        """Return the answer to a request.

        Raises:
            TooMuchWorkError: the child died of it.
        """
        with self._lock:  # both arms may render at once
            return self._answer_to(request)

    def _answer_to(self, request: dict[str, object]) -> Any:  # noqa: ANN401 -- what the child answers
        process = self._begun()
        assert process.stdin is not None  # noqa: S101 -- see _begin
        assert process.stdout is not None  # noqa: S101 -- see _begin
        try:
            _say(process.stdin, {"cpu_s": self._cpu_s, **request})
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        except BaseException:  # interrupted: what it answers later is no answer to the next request
            self.end()
            raise
        if not answer.endswith(b"\n"):
            self.end()
            message = f"more than {self._cpu_s} s of a processor, or more memory than there is"
            raise TooMuchWorkError(message)
        return json.loads(answer)

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None

    def _begun(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._process.stdin is not None  # noqa: S101 -- a pipe was asked for
            first = {
                "kind": self._kind,
                "path": [entry for entry in sys.path if entry],
                "memory_bytes": bounds.CHILD_BYTES,
                "most_characters": bounds.RENDERED_CHARACTERS,
            }
            with contextlib.suppress(BrokenPipeError):  # `ask` meets it too
                _say(self._process.stdin, first)
        return self._process


def _say(pipe: IO[bytes], value: object) -> None:
    pipe.write(json.dumps(value).encode() + b"\n")
    pipe.flush()
