"""`harness prefetch` as typer takes it."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.command import command
from harness.cli.console import Result
from harness.request import Request

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A format, or the file of a recipe.")
]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite, or the file of one.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to fill; typed again, it goes on.")]
Wheels = Annotated[
    Path | None,
    typer.Option("--wheels", help="Also fetch the wheels that this lock file of pip's names."),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="Fetch nothing: load all of it, refusing every connection."),
]


def add_prefetch(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(
        app,
        "prefetch nvfp4 nightly --model Qwen/Qwen3-30B-A3B --out /mnt/disk/qwen",
        *("model", "revision", "tasks", "task_code", "calib_data", "calib_size", "calib_seq"),
        "baseline",
    )
    def prefetch(  # noqa: PLR0913 - one parameter an option
        request: Request,
        *,
        recipe: RecipeName,
        suite: SuiteName,
        out: Out,
        wheels: Wheels = None,
        check: Check = False,
    ) -> Result:
        """Collect all that a run needs from a network, for a machine that has none."""
        from harness.cli import prefetches  # noqa: PLC0415 - it takes seconds

        request = prefetches.completed(request, recipe, suite)
        if check:
            return prefetches.check(request, out)
        return prefetches.fill(request, out, wheels)
