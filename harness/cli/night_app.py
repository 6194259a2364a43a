"""`harness nightly` as typer takes it."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.command import command
from harness.cli.console import Result

MatrixPath = Annotated[Path, typer.Argument(metavar="MATRIX", help="The matrix's YAML file.")]
Listed = Annotated[bool, typer.Option("--list", help="Name the cells, and stop.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="One cell alone; repeatable. Default: all.")
]


def add_nightly(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, "nightly MATRIX.yaml --list")
    def nightly(*, matrix: MatrixPath, listed: Listed = False, only: Only = None) -> Result:
        """Run every cell of a matrix; exit 0 only if each is GO."""
        from harness.cli import nightlies

        del listed
        return nightlies.list_cells(matrix, only or [])
