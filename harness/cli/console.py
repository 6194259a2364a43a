"""What the terminal sees: progress on stderr, results on stdout, one line an error."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import typer

from harness.errors import ExitCode, HarnessError


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a command has to say."""

    text: str
    values: object
    """The same as JSON values."""
    exit_code: int = ExitCode.GO


class TerminatedError(BaseException):
    """SIGTERM arrived; no handler of errors may swallow it."""


def show_progress(*, quiet: bool) -> None:
    """Send harness's own log lines to stderr, and keep libraries' chatter out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def emit(result: Result, *, as_json: bool) -> None:
    """Print a result and leave with its exit code."""
    typer.echo(json.dumps(result.values, indent=1, allow_nan=False) if as_json else result.text)
    if result.exit_code:
        raise typer.Exit(int(result.exit_code))


@contextmanager
def concluding(*, as_json: bool) -> Iterator[None]:
    """Give every ending its exit code and its line.

    A bug is not caught here: it ends with its traceback and exit code 1.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except HarnessError as error:
        if as_json:
            values = {
                "error": str(error),
                "reason_codes": [error.reason],
                "retryable": error.retryable,
                "exit_code": int(error.exit_code),
            }
            typer.echo(json.dumps(values, indent=1))
        typer.echo(f"harness: {error}", err=True)
        raise typer.Exit(int(error.exit_code)) from error
    except KeyboardInterrupt as interrupt:
        _interrupted("SIGINT", ExitCode.SIGINT, interrupt)
    except TerminatedError as interrupt:
        _interrupted("SIGTERM", ExitCode.SIGTERM, interrupt)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    del signum, frame
    raise TerminatedError


def _interrupted(name: str, code: ExitCode, cause: BaseException) -> NoReturn:
    typer.echo(f"harness: interrupted by {name}. Type the command again to continue.", err=True)
    raise typer.Exit(int(code)) from cause
