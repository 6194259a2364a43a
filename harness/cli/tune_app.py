"""`harness tune`: the best mixed recipe for a number of bits, or the smallest that passes."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.command import command
from harness.cli.console import Result
from harness.request import JUDGING, MAKING, Request

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The unquantized model: Hub id, folder, 'canary'.")
]
Bits = Annotated[
    float | None,
    typer.Option("--bits", help="Stored bits a quantizable weight at most, scales included."),
]
Margin = Annotated[
    str | None,
    typer.Option("--margin", help="Instead: the smallest recipe that gets GO in this suite."),
]
Formats = Annotated[
    str,
    typer.Option("--formats", help="Recipes of one format each; none: may be left as it is."),
]
AlgorithmName = Annotated[
    str | None,
    typer.Option("--algorithm", help="Of NVFP4 weights, as a format's name ends: local_hessian."),
]
Tokens = Annotated[
    int, typer.Option("--tokens", help="Of text on which units, and then recipes, are measured.")
]
TuneDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Default: runs/<model>-tune-<digest>.")
]
_OWN = {"qformat", "recipe", "margin"}
"""Options of runs that tuning sets itself."""
_FIELDS = tuple(name for name in (*MAKING, *JUDGING, "baseline", "offline") if name not in _OWN)


def add_tune(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "tune canary --bits 5 --suite drill --engine reference", *_FIELDS, model=Model)
    def tune(  # noqa: PLR0913 - one parameter an option
        request: Request,
        *,
        bits: Bits = None,
        margin: Margin = None,
        formats: Formats = "nvfp4,fp8,none",
        algorithm: AlgorithmName = None,
        tokens: Tokens = 8192,
        run_dir: TuneDir = None,
        plan: opt.PlanOnly = False,
    ) -> Result:
        """Find the mixed recipe of the least KLD for its bits, and let the gate judge it.

        What each format costs each layer is measured in one pass, recipes as a whole in another.
        The exit code is the gate's: 0 on GO, 4 on NO-GO. Typed again, it goes on.
        """
        from harness.cli import tuning

        typed = tuning.Typed(bits, margin, formats, algorithm or "", tokens)
        if plan:
            return tuning.planned(request, typed, run_dir)
        return tuning.tuned(request, typed, run_dir)
