"""The program from its first line to its exit code."""

import sys

import typer

from harness import refusals
from harness.cli.app import app
from harness.cli.streams import make_patient
from harness.errors import ExitCode
from harness.interrupts import ToldToEndError, line_of, stop_listening


def run() -> None:
    """Run the command that was typed, and leave with its exit code."""
    make_patient()
    try:
        _refuse_what_is_no_text()
        app()
    except ToldToEndError as end:
        typer.echo(line_of(end.number), err=True)
        sys.exit(128 + end.number)
    finally:
        stop_listening()


def _refuse_what_is_no_text() -> None:
    """Refuse an argument that is not UTF-8: it could be neither printed nor kept in a file."""
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            typer.echo(f"harness: {refusals.not_utf8(error)}", err=True)
            sys.exit(int(ExitCode.USAGE))
