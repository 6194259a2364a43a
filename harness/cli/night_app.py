"""`harness nightly` as typer takes it."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.command import command
from harness.cli.console import Result

MatrixPath = Annotated[Path, typer.Argument(metavar="MATRIX", help="The matrix's YAML file.")]
Listed = Annotated[bool, typer.Option("--list", help="Name the cells, and stop.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="One cell alone; repeatable. Default: all.")
]
Collected = Annotated[
    bool, typer.Option("--collect", help="Run nothing: gather what was run, and judge the night.")
]
Sources = Annotated[
    list[Path] | None,
    typer.Option("--from", help="With --collect: another machine's --out; repeatable."),
]
Dry = Annotated[bool, typer.Option("--dry-run", help="Check every cell, run nothing.")]
NightName = Annotated[
    str | None,
    typer.Option("--night", help="Name of the night; the same again goes on. Default: today, UTC."),
]
NightsDir = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of all nights. Default: runs/nightly/<matrix's name>."),
]
Cluster = Annotated[
    str | None,
    typer.Option("--as", help="Run nothing: print what slurm, kubernetes or github is given."),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", help="Run on a Ray cluster: its job API, as http://127.0.0.1:8265."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE for the cluster, as partition=gpu; repeatable."),
]
Wait = Annotated[
    str | None,
    typer.Option(
        "--wait",
        help="Collect when all have ended on other machines, waiting so long at most: 24h.",
    ),
]


def add_nightly(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, "nightly MATRIX.yaml --night 2031-12-31 --out nights")
    def nightly(  # noqa: PLR0913 - one parameter an option
        *,
        matrix: MatrixPath,
        listed: Listed = False,
        only: Only = None,
        collected: Collected = False,
        sources: Sources = None,
        dry_run: Dry = False,
        night: NightName = None,
        out: NightsDir = None,
        cluster: Cluster = None,
        ray: RayAddress = None,
        settings: Settings = None,
        wait: Wait = None,
        mlflow: opt.MlflowUri = None,
        wandb: opt.WandbDir = None,
    ) -> Result:
        """Run every cell of a matrix, each a process; exit 0 only if each is GO.

        Exit with the worst of the cells in the order 1, 3, 4, 5, 0. Typed again with the same
        --night and --out, it goes on where it was.
        """
        from harness.cli import night_clusters, nightlies, tracked

        without_rows = {"--list": listed, "--dry-run": dry_run, "--as": cluster is not None}
        refused_by = next((name for name, is_typed in without_rows.items() if is_typed), "")
        trackers = tracked.trackers_of(mlflow, wandb, refused_by=refused_by)
        typed = nightlies.Typed(matrix, tuple(only or ()), night, out, trackers)
        if listed:
            return nightlies.list_cells(typed)
        if dry_run:
            return nightlies.check(typed)
        gathered = tuple(sources or ())
        elsewhere = night_clusters.Elsewhere(cluster, ray, tuple(settings or ()), wait, gathered)
        if elsewhere.is_meant:
            return night_clusters.on_cluster(typed, elsewhere)
        if collected or gathered:
            return nightlies.collected(typed, gathered)
        return nightlies.ran(typed)
