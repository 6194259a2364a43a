"""What a script starts, in this process: imports are paid for once."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.typed import typed


@contextmanager
def harness_in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Type commands of harness here instead of starting them; gives what was typed."""
    begin, start = [sys.executable, "-m", "harness"], subprocess.run
    commands: list[list[str]] = []

    def run(command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - subprocess's own
        if list(command[:3]) != begin:
            return start(command, **how)
        commands.append(list(command[3:]))
        done = typed(*commands[-1])
        assert done.code == 0, done.err
        return subprocess.CompletedProcess(command, 0, stdout=done.out)

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", run)
        yield commands
