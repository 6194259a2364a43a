"""`harness bisect`: which engine, checkpoint or commit made it bad."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.command import command
from harness.cli.console import Result

BisectOut = Annotated[
    Path, typer.Option("--out", help="Folder of this bisect; typed again, it goes on there.")
]
Good = Annotated[str | None, typer.Option("--good", help="Commit that is good.")]
Bad = Annotated[str | None, typer.Option("--bad", help="Commit that is bad, after the good one.")]
Repository = Annotated[Path, typer.Option("--repo", help="Repository of the commits.")]
Paths = Annotated[
    list[str] | None, typer.Option("--path", help="Only commits that change this; repeatable.")
]
Engines = Annotated[
    str | None,
    typer.Option(help="Versions of vLLM from good to bad, or NAME=ENVIRONMENT, with commas."),
]
Checkpoints = Annotated[
    str | None, typer.Option(help="Folders from good to bad, with commas; {checkpoint} is each.")
]
CheckName = Annotated[
    str | None,
    typer.Option("--check", help="Check of verification or of the smoke run that decides alone."),
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Times that each end is run.")]
Words = Annotated[
    list[str], typer.Argument(metavar="-- COMMAND...", help="e2e, gate or quantize, as typed.")
]
_EXAMPLE = "bisect --good v1 --bad main --out b -- e2e --model canary --qformat nvfp4 --suite drill"


def add_bisect(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, _EXAMPLE)
    def bisect(  # noqa: PLR0913 - one parameter an option
        *,
        words: Words,
        out: BisectOut,
        good: Good = None,
        bad: Bad = None,
        repo: Repository = Path(),
        path: Paths = None,
        engines: Engines = None,
        checkpoints: Checkpoints = None,
        check: CheckName = None,
        repeats: Repeats = 2,
    ) -> Result:
        """Find the first bad engine, checkpoint or commit: exit 0 if found, 5 if it cannot be said.

        GO is good, NO-GO is bad, all else is skipped. Both ends are run first, several times.
        {tree} in the command is the folder of each commit; commits of harness run their own code.
        """
        from harness.cli import bisecting

        typed = bisecting.Typed(
            commits=(good, bad),
            repository=repo,
            paths=tuple(path or ()),
            engines=engines,
            checkpoints=checkpoints,
        )
        question = bisecting.question_of(typed, words, check or "", repeats)
        return bisecting.bisected(question, out)
