"""The typer application and its commands."""

from pathlib import Path
from typing import Annotated

import typer

from harness import __version__
from harness.cli import options as opt
from harness.cli.baseline import baseline_app
from harness.cli.console import concluding, emit, show_progress
from harness.cli.drill import drill
from harness.cli.groups import CalibrationOptions, EngineOptions, grouped, requested
from harness.garbage import collect_rarely
from harness.surroundings import leave_current_folder

app = typer.Typer(
    name="harness",
    help="Quantize a model, serve it, score it, and decide with evidence whether to release it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(baseline_app, name="baseline")


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Quantize a model, serve it, score it, and decide whether it may be released."""
    del version
    leave_current_folder()
    collect_rarely()
    show_progress(quiet=quiet)


@app.command(
    epilog="Example: harness e2e --model canary --qformat nvfp4",
)
@grouped
def e2e(  # noqa: PLR0913 - one parameter an option; the contract lists them
    *,
    model: opt.Model,
    qformat: opt.Qformat = None,
    recipe: opt.RecipeFile = None,
    kv_cache_qformat: opt.KvCache = None,
    suite: opt.SuiteName = None,
    margin: opt.Margin = None,
    engine_options: EngineOptions,
    calibration: CalibrationOptions,
    device: opt.Device = "auto",
    revision: opt.Revision = None,
    run_dir: opt.RunDir = None,
    plan: opt.PlanOnly = False,
    fresh: opt.Fresh = False,
    baseline: opt.OtherBaseline = None,
    waivers: opt.Waivers = None,
    skip_verify: opt.SkipVerify = False,
    paranoid: opt.Paranoid = False,
    as_json: opt.AsJson = False,
) -> None:
    """Quantize, export, verify, serve, score and judge; exit 0 on GO, 4 on NO-GO."""
    with concluding(as_json=as_json):
        from harness.cli import commands  # noqa: PLC0415 - imports torch

        commands.set_paranoid(on=paranoid)
        request = requested(
            model,
            calibration,
            engine_options,
            qformat=qformat,
            recipe=recipe,
            revision=revision,
            kv_cache=kv_cache_qformat,
            suite=suite,
            margin=margin,
            device=device,
            skip_verify=skip_verify,
            baseline=baseline,
            waivers=waivers,
        )
        if plan:
            emit(commands.plan(request, run_dir), as_json=as_json)
        else:
            emit(commands.e2e(request, run_dir, fresh=fresh), as_json=as_json)


@app.command(
    epilog="Example: harness quantize --model canary --qformat nvfp4 --out /tmp/canary-nvfp4",
)
@grouped
def quantize(  # noqa: PLR0913 - one parameter an option; the contract lists them
    *,
    model: opt.Model,
    out: opt.OutDir,
    qformat: opt.Qformat = None,
    recipe: opt.RecipeFile = None,
    kv_cache_qformat: opt.KvCache = None,
    calibration: CalibrationOptions,
    device: opt.Device = "auto",
    revision: opt.Revision = None,
    plan: opt.PlanOnly = False,
    fresh: opt.Fresh = False,
    as_json: opt.AsJson = False,
) -> None:
    """Calibrate, quantize, export and verify; the checkpoint is OUT/checkpoint."""
    with concluding(as_json=as_json):
        from harness.cli import commands  # noqa: PLC0415 - imports torch

        request = requested(
            model,
            calibration,
            qformat=qformat,
            recipe=recipe,
            revision=revision,
            kv_cache=kv_cache_qformat,
            device=device,
        )
        if plan:
            emit(commands.plan(request, out, scored=False), as_json=as_json)
        else:
            emit(commands.quantize(request, out, fresh=fresh), as_json=as_json)


@app.command(
    epilog="Example: harness gate /models/Qwen3-30B-A3B-NVFP4 --baseline Qwen/Qwen3-30B-A3B",
)
@grouped
def gate(  # noqa: PLR0913 - one parameter an option; the contract lists them
    *,
    checkpoint: opt.Checkpoint,
    baseline: opt.Baseline,
    suite: opt.SuiteName = None,
    margin: opt.Margin = None,
    engine_options: EngineOptions,
    device: opt.Device = "auto",
    revision: opt.Revision = None,
    run_dir: opt.RunDir = None,
    plan: opt.PlanOnly = False,
    fresh: opt.Fresh = False,
    waivers: opt.Waivers = None,
    skip_verify: opt.SkipVerify = False,
    paranoid: opt.Paranoid = False,
    as_json: opt.AsJson = False,
) -> None:
    """Verify, serve, score and judge a checkpoint of any origin; exit 0 on GO, 4 on NO-GO."""
    with concluding(as_json=as_json):
        from harness.cli import commands  # noqa: PLC0415 - imports torch

        commands.set_paranoid(on=paranoid)
        request = requested(
            baseline,
            engine_options,
            revision=revision,
            suite=suite,
            margin=margin,
            device=device,
            skip_verify=skip_verify,
            waivers=waivers,
        )
        if plan:
            emit(commands.plan_gate(request, checkpoint, run_dir), as_json=as_json)
        else:
            emit(commands.gate(request, checkpoint, run_dir, fresh=fresh), as_json=as_json)


@app.command(
    epilog="Example: harness verify runs/canary-nvfp4-1a2b3c4d/checkpoint --source canary",
)
def verify(
    *,
    checkpoint: opt.Checkpoint,
    source: opt.SourceModel = None,
    engine: opt.EngineVersion = None,
    junit: opt.JunitFile = None,
    as_json: opt.AsJson = False,
) -> None:
    """Check a checkpoint's files; needs no accelerator. Exit 4 on an error."""
    with concluding(as_json=as_json):
        from harness.cli import verifying  # noqa: PLC0415 - imports torch

        emit(verifying.verify(checkpoint, source, engine, junit), as_json=as_json)


@app.command(epilog="Example: harness serve runs/canary-nvfp4-1a2b3c4d/checkpoint")
@grouped
def serve(
    *,
    checkpoint: opt.Checkpoint,
    engine_options: EngineOptions,
    max_model_len: opt.MaxModelLen = None,
    out: opt.RecordsDir = None,
    as_json: opt.AsJson = False,
) -> None:
    """Serve a checkpoint until interrupted; the base URL is printed when it is ready."""
    with concluding(as_json=as_json):
        from harness.cli import serving  # noqa: PLC0415 - imports torch

        request = requested(
            str(checkpoint),
            engine_options,
        )
        serving.serve_until_interrupted(request, max_model_len, out, as_json=as_json)


@app.command(
    epilog="Example: harness score runs/canary-nvfp4-1a2b3c4d/checkpoint --suite canary --out s",
)
@grouped
def score(  # noqa: PLR0913 - one parameter an option; the contract lists them
    *,
    target: opt.Target,
    suite: opt.SuiteName,
    out: opt.OutDir,
    tokenizer: opt.TokenizerDir = None,
    served_model: opt.ServedModel = None,
    engine_options: EngineOptions,
    device: opt.Device = "auto",
    as_json: opt.AsJson = False,
) -> None:
    """Score a checkpoint, an unquantized model, or a server that somebody else runs."""
    with concluding(as_json=as_json):
        from harness.cli import serving  # noqa: PLC0415 - imports torch

        request = requested(
            target,
            engine_options,
            suite=suite,
            device=device,
        )
        server = serving.Server(tokenizer=tokenizer, model=served_model)
        emit(serving.score(request, server, out), as_json=as_json)


@app.command(epilog="Example: harness judge baseline-scores candidate-scores --suite canary")
def judge(
    *,
    baseline: Annotated[Path, typer.Argument(help="Folder with the baseline's scorecard.json.")],
    candidate: Annotated[Path, typer.Argument(help="Folder with the candidate's scorecard.json.")],
    suite: opt.SuiteName = None,
    margin: opt.Margin = None,
    as_json: opt.AsJson = False,
) -> None:
    """Compare two scored arms. Without verification of files it can never end GO."""
    with concluding(as_json=as_json):
        from harness.cli import commands  # noqa: PLC0415 - imports torch

        emit(commands.judge(baseline, candidate, suite, margin), as_json=as_json)


@app.command(epilog="Example: harness report runs/canary-nvfp4-1a2b3c4d")
def report(
    *, run_dir: opt.FinishedRun, paranoid: opt.Paranoid = False, as_json: opt.AsJson = False
) -> None:
    """Write the reports of a run again from what its directory holds."""
    with concluding(as_json=as_json):
        from harness.cli import commands  # noqa: PLC0415 - imports torch

        commands.set_paranoid(on=paranoid)
        emit(commands.report(run_dir), as_json=as_json)


@app.command(epilog="Example: harness status runs/canary-nvfp4-1a2b3c4d")
def status(
    *, run_dir: opt.FinishedRun, paranoid: opt.Paranoid = False, as_json: opt.AsJson = False
) -> None:
    """Say which stages of a run are finished, how long each took, and how it ended."""
    with concluding(as_json=as_json):
        from harness.cli import commands  # noqa: PLC0415 - imports torch

        commands.set_paranoid(on=paranoid)
        emit(commands.status(run_dir), as_json=as_json)


@app.command(epilog="Example: harness doctor")
def doctor(*, as_json: opt.AsJson = False) -> None:
    """Say what this machine can run, and the command that would mend what it cannot."""
    with concluding(as_json=as_json):
        from harness.cli import serving  # noqa: PLC0415 - imports torch

        emit(serving.doctor(), as_json=as_json)


app.command(epilog="Example: harness drill --fault expert-input-scales-deleted")(drill)
