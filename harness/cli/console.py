"""What the terminal sees: progress on stderr, results on stdout, one line an error."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from harness import refusals
from harness.cli.streams import raise_refused
from harness.errors import ExitCode, HarnessError, UsageError
from harness.interrupts import ToldToEndError, answer_as_before, line_of, listen


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a command has to say."""

    text: str
    values: object
    """The same as JSON values."""
    exit_code: int = ExitCode.GO


def show_progress(*, quiet: bool) -> None:
    """Send harness's own log lines to stderr, and keep libraries' chatter out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads of torch that wait spin otherwise, on the core that the others would need. Servers
        # are not given this variable.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def emit(result: Result, *, as_json: bool) -> None:
    """Print a result and leave with its exit code.

    Raises:
        OSError: standard output cannot be written.
    """
    typer.echo(json.dumps(result.values, indent=1, allow_nan=False) if as_json else result.text)
    raise_refused()
    if result.exit_code:
        raise typer.Exit(int(result.exit_code))


@contextmanager
def concluding(*, as_json: bool) -> Iterator[None]:
    """Give every ending its exit code and its line.

    A bug is not caught here: it ends with its traceback and exit code 1.
    """
    before = listen()
    try:
        with _refusals_named():
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
    except (KeyboardInterrupt, ToldToEndError) as interrupt:
        number = getattr(interrupt, "number", signal.SIGINT)
        typer.echo(line_of(number), err=True)
        raise typer.Exit(128 + number) from interrupt
    finally:
        answer_as_before(before)


@contextmanager
def _refusals_named() -> Iterator[None]:
    """Turn what the operating system refuses into the line that says so.

    Raises:
        HarnessError: what was given cannot be used, or the machine is short of something.
    """
    try:
        yield
    except OSError as error:
        raise refusals.given(error) from error
    except MemoryError as error:
        raise refusals.out_of_memory(error) from error
    except UnicodeEncodeError as error:
        raise refusals.not_utf8(error) from error
    except ValueError as error:
        if "null byte" not in str(error) and "null character" not in str(error):
            raise
        message = f"a path holds a NUL ({error}). Correct the file that names it."
        raise UsageError(message) from error
