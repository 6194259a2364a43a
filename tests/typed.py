"""A command that is typed in this process: enough where its ending, texts and files matter."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from harness.cli import app


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the command printed
        return json.loads(self.out)

    def line(self) -> str:
        """Return the one line of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("harness: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def typed(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Done:
    with chdir(cwd or Path.cwd()), _logging_as_before():
        words = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, words, env=env, catch_exceptions=False)
    return Done(done.exit_code, done.stdout, done.stderr)


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """A command sends what harness logs to its own stderr, which is gone when it ends."""
    logger = logging.getLogger("harness")
    before = logger.handlers, logger.propagate, logger.level
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
