"""`harness baseline`: measure, list, share and remove the scores of unquantized models."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.console import concluding, emit
from harness.cli.groups import EngineOptions, grouped, requested

_EXAMPLES = """Examples:

    harness baseline add --model canary --suite canary

    harness baseline list

    harness baseline export 1a2b3c4d --out canary.baseline

    HARNESS_BASELINES=/shared harness baseline import canary.baseline

    harness gate CHECKPOINT --baseline canary.baseline
"""

baseline_app = typer.Typer(
    help="Measure, list, share and remove the scores of unquantized models.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)
Key = Annotated[str, typer.Argument(help="Beginning of a key that `harness baseline list` shows.")]
BundleFile = Annotated[Path, typer.Argument(help="A file that `harness baseline export` wrote.")]
BundleOut = Annotated[Path, typer.Option("--out", help="File to write.")]


@baseline_app.command(epilog="Example: harness baseline add --model canary --suite canary")
@grouped
def add(  # noqa: PLR0913 - one parameter an option; the contract lists them
    *,
    model: opt.Model,
    suite: opt.SuiteName,
    engine_options: EngineOptions,
    device: opt.Device = "auto",
    revision: opt.Revision = None,
    as_json: opt.AsJson = False,
) -> None:
    """Score an unquantized model twice with a suite and keep both; later runs find it."""
    with concluding(as_json=as_json):
        from harness.cli import keeping  # noqa: PLC0415 - imports torch

        request = requested(
            model,
            engine_options,
            suite=suite,
            revision=revision,
            device=device,
        )
        emit(keeping.add(request), as_json=as_json)


@baseline_app.command("list", epilog="Example: harness baseline list --json")
def list_all(*, as_json: opt.AsJson = False) -> None:
    """Show what the store holds ($HARNESS_BASELINES, or a folder in the user's cache)."""
    with concluding(as_json=as_json):
        from harness.cli import keeping  # noqa: PLC0415 - imports torch

        emit(keeping.list_all(), as_json=as_json)


@baseline_app.command(epilog="Example: harness baseline export 1a2b3c4d --out canary.baseline")
def export(*, key: Key, out: BundleOut, as_json: opt.AsJson = False) -> None:
    """Write one baseline, with every answer of both its runs, to one file."""
    with concluding(as_json=as_json):
        from harness.cli import keeping  # noqa: PLC0415 - imports torch

        emit(keeping.export(key, out), as_json=as_json)


@baseline_app.command("import", epilog="Example: harness baseline import canary.baseline")
def import_bundle(*, bundle: BundleFile, as_json: opt.AsJson = False) -> None:
    """Check a file that `export` wrote and put it into the store; twice does no harm."""
    with concluding(as_json=as_json):
        from harness.cli import keeping  # noqa: PLC0415 - imports torch

        emit(keeping.import_bundle(bundle), as_json=as_json)


@baseline_app.command(epilog="Example: harness baseline rm 1a2b3c4d")
def rm(*, key: Key, as_json: opt.AsJson = False) -> None:
    """Remove one baseline from the store."""
    with concluding(as_json=as_json):
        from harness.cli import keeping  # noqa: PLC0415 - imports torch

        emit(keeping.remove(key), as_json=as_json)
