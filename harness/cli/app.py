"""The typer application and its commands; what each does is imported when it is typed."""

from pathlib import Path
from typing import Annotated

import typer

from harness import __version__
from harness.cli import options as opt
from harness.cli.bisect_app import add_bisect
from harness.cli.command import command
from harness.cli.console import Result, show_progress
from harness.cli.localize_app import add_localize
from harness.cli.night_app import add_nightly
from harness.cli.prefetch_app import add_prefetch
from harness.cli.release_app import add_release
from harness.cli.suite_app import suite_app
from harness.cli.tune_app import add_tune
from harness.garbage import collect_rarely
from harness.request import ASKING, JUDGING, MAKING, SERVING, Request
from harness.surroundings import leave_current_folder

_BASELINE_EXAMPLES = """Examples:

    harness baseline add --model canary --suite canary

    harness baseline list

    harness baseline export 1a2b3c4d --out canary.baseline

    HARNESS_BASELINES=/shared harness baseline import canary.baseline

    harness gate CHECKPOINT --baseline canary.baseline
"""

app = typer.Typer(
    name="harness",
    help="Quantize a model, serve it, score it, and decide with evidence whether to release it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
baseline_app = typer.Typer(
    help="Measure, list, share and remove the scores of unquantized models.",
    epilog=_BASELINE_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(baseline_app, name="baseline")
app.add_typer(suite_app, name="suite")
add_nightly(app)
add_release(app)
add_prefetch(app)
add_bisect(app)
add_localize(app)
add_tune(app)


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


@command(app, "e2e --model canary --qformat nvfp4", *MAKING, *JUDGING, "baseline", "offline")
def e2e(
    request: Request,
    *,
    run_dir: opt.RunDir = None,
    plan: opt.PlanOnly = False,
    fresh: opt.Fresh = False,
    paranoid: opt.Paranoid = False,
) -> Result:
    """Quantize, export, verify, serve, score and judge; exit 0 on GO, 4 on NO-GO."""
    from harness.cli import commands

    commands.set_paranoid(on=paranoid)
    if plan:
        return commands.plan(request, run_dir)
    return commands.e2e(request, run_dir, fresh=fresh)


@command(app, "quantize --model canary --qformat nvfp4 --out /tmp/canary-nvfp4", *MAKING, "offline")
def quantize(
    request: Request,
    *,
    out: opt.OutDir,
    plan: opt.PlanOnly = False,
    fresh: opt.Fresh = False,
) -> Result:
    """Calibrate, quantize, export and verify; the checkpoint is OUT/checkpoint."""
    from harness.cli import commands

    if plan:
        return commands.plan(request, out, scored=False)
    return commands.quantize(request, out, fresh=fresh)


@command(
    app,
    "gate /models/Qwen3-30B-A3B-NVFP4 --baseline Qwen/Qwen3-30B-A3B",
    *("model", "revision", "device", *JUDGING, "offline"),
    model=opt.Baseline,
)
def gate(  # noqa: PLR0913 - one parameter an option
    request: Request,
    *,
    candidate: opt.Candidate = None,
    candidate_url: opt.CandidateUrl = None,
    baseline_url: opt.BaselineUrl = None,
    candidate_model: opt.CandidateModel = None,
    baseline_model: opt.BaselineModel = None,
    tokenizer: opt.TokenizerDir = None,
    checkpoint: opt.SaidToRun = None,
    run_dir: opt.RunDir = None,
    plan: opt.PlanOnly = False,
    fresh: opt.Fresh = False,
    paranoid: opt.Paranoid = False,
) -> Result:
    """Judge a checkpoint of any origin, or one running deployment against another.

    Exit 0 on GO, 4 on NO-GO. With --candidate-url and --baseline-url nothing is served: both
    servers are asked. API keys: HARNESS_API_KEY, or HARNESS_CANDIDATE_API_KEY and
    HARNESS_BASELINE_API_KEY.
    """
    from harness.cli.early import candidate_read

    with candidate_read(request, None if plan else candidate) as ahead:
        from harness.cli import commands, deployments

        commands.set_paranoid(on=paranoid)
        typed = deployments.Typed(
            candidate_url=candidate_url,
            baseline_url=baseline_url,
            candidate_model=candidate_model,
            baseline_model=baseline_model,
            tokenizer=tokenizer,
            checkpoint=checkpoint,
        )
        servers = deployments.servers_of(typed, request, candidate)
        if servers is not None:
            return deployments.gate(request, servers, run_dir, plan=plan, fresh=fresh)
        folder = deployments.checkpoint_of(request, candidate)
        if plan:
            return commands.plan_gate(request, folder, run_dir)
        return commands.gate(request, folder, ahead, run_dir, fresh=fresh)


@command(app, "verify runs/canary-nvfp4-1a2b3c4d/checkpoint --source canary")
def verify(
    *,
    checkpoint: opt.Checkpoint,
    source: opt.SourceModel = None,
    engine: opt.EngineVersion = None,
    junit: opt.JunitFile = None,
) -> Result:
    """Check a checkpoint's files; needs no accelerator. Exit 4 on an error."""
    from harness.cli import verifying

    return verifying.verify(checkpoint, source, engine, junit)


@command(app, "serve runs/canary-nvfp4-1a2b3c4d/checkpoint", "model", *SERVING, model=opt.Served)
def serve(
    request: Request,
    *,
    max_model_len: opt.MaxModelLen = None,
    out: opt.RecordsDir = None,
    as_json: bool,
) -> None:
    """Serve a checkpoint until interrupted; the base URL is printed when it is ready."""
    from harness.cli import serving

    serving.serve_until_interrupted(request, max_model_len, out, as_json=as_json)


@command(
    app,
    "score runs/canary-nvfp4-1a2b3c4d/checkpoint --suite canary --out s",
    *("model", *ASKING, *SERVING, "device", "offline"),
    model=opt.Target,
    suite=...,
)
def score(
    request: Request,
    *,
    out: opt.OutDir,
    tokenizer: opt.TokenizerDir = None,
    served_model: opt.ServedModel = None,
) -> Result:
    """Score a checkpoint, an unquantized model, or a server that somebody else runs."""
    from harness.cli import serving

    return serving.score(request, serving.Server(tokenizer=tokenizer, model=served_model), out)


@command(
    app,
    "judge baseline-scores candidate-scores --suite canary",
    *("suite", "tasks", "task_code", "margin", "missing_evidence"),
)
def judge(request: Request, *, baseline: opt.BaselineArm, candidate: opt.CandidateArm) -> Result:
    """Compare two scored arms: ours, or what other tools recorded.

    Ours cannot end GO here, for no files are verified. Other tools: lm-eval, NeMo Evaluator and
    inspect_ai. Of their records the answers alone may give GO with --missing-evidence go;
    --margin 0.02 judges every task that both arms have.
    """
    from harness.cli import judging

    return judging.judge(request, baseline, candidate)


@command(app, "report runs/canary-nvfp4-1a2b3c4d")
def report(  # noqa: PLR0913 - one parameter an option
    *,
    run_dir: opt.FinishedRun,
    into: opt.LayoutDir = None,
    layout: opt.Layout = None,
    mlflow: opt.MlflowUri = None,
    wandb: opt.WandbDir = None,
    paranoid: opt.Paranoid = False,
) -> Result:
    """Write the reports of a run again, the trend page of nightlies, or scores in another layout.

    Of a folder of nightlies (their --out) it writes trend.html: cells by nights, and alarms.
    `harness report RUN_DIR --as lm-eval DIR` writes what lm-eval's own tools read, `--as nel` what
    NeMo Evaluator's do.
    """
    from harness.cli import commands, judging, tracked
    from harness.nights import open_ledger

    commands.set_paranoid(on=paranoid)
    if layout is not None or into is not None:
        tracked.trackers_of(mlflow, wandb, refused_by="a layout of another tool")
        return judging.write_scores(run_dir, layout, into)
    if open_ledger(run_dir).exists:
        from harness.cli import trends

        tracked.trackers_of(mlflow, wandb, refused_by="a folder of nightlies")
        return trends.report(run_dir)
    trackers = tracked.trackers_of(mlflow, wandb)
    done = commands.report(run_dir)
    tracked.track_run(trackers, run_dir)
    return done


@command(app, "status runs/canary-nvfp4-1a2b3c4d")
def status(*, run_dir: opt.FinishedRun, paranoid: opt.Paranoid = False) -> Result:
    """Say which stages of a run are finished, how long each took, and how it ended."""
    from harness.cli import commands

    commands.set_paranoid(on=paranoid)
    return commands.status(run_dir)


@command(app, "diff runs/canary-nvfp4-1a2b3c4d runs/canary-fp8-5e6f7a8b")
def diff(*, run_a: opt.RunA, run_b: opt.RunB, flips: opt.NumFlips = 20) -> Result:
    """Compare two runs: what could have made their scores differ, then everything that differs.

    Each is a run directory however it ended, a scored arm, or both are another tool's records.
    """
    from harness.cli import differing

    return differing.differ(run_a, run_b, flips)


@command(app, "doctor --vllm .venv-vllm")
def doctor(*, vllm: opt.ProbedVllm = None, foretold: opt.ForetoldFormat = None) -> Result:
    """Say what this machine can run, and the command that would mend what it cannot."""
    if foretold is not None:
        from harness.cli.foretelling import foretell_format

        return foretell_format(foretold, vllm)
    if vllm is not None:
        from harness.cli.probing import probe_vllm

        return probe_vllm(vllm)
    from harness.cli import serving

    return serving.doctor()


@command(app, "formats")
def formats() -> Result:
    """Say which formats can be made, their bits a weight, and which engines load them."""
    from harness.cli import formats as listing

    return listing.list_formats()


@command(
    app,
    "drill --fault expert-input-scales-deleted",
    *("engine", "vllm", "engine_args", "suite"),
    engine=opt.DrillEngine,
)
def drill(  # noqa: PLR0913 - one parameter an option
    request: Request,
    *,
    fault: opt.FaultNames = None,
    tamper: opt.Tamper = False,
    run_dir: opt.DrillDir = None,
    jobs: opt.Jobs = 1,
    fresh: opt.DrillFresh = False,
    list_faults: opt.ListFaults = False,
) -> Result:
    """Put known faults back, one at a time; exit 0 if each is caught and correct runs get GO."""
    from harness.cli import drills

    names = fault or []
    if list_faults:
        return drills.listed_attacks() if tamper else drills.listed_faults()
    if tamper:
        return drills.tampered(request, run_dir or Path("runs/tamper"), names, fresh=fresh)
    return drills.drilled(request, run_dir or Path("runs/drill"), names, jobs=jobs, fresh=fresh)


@command(
    baseline_app,
    "baseline add --model canary --suite canary",
    *("model", "revision", *ASKING, *SERVING, "device", "offline"),
    name="add",
    suite=...,
)
def add_baseline(request: Request) -> Result:
    """Score an unquantized model twice with a suite and keep both; later runs find it."""
    from harness.cli import baselines

    return baselines.add(request)


@command(baseline_app, "baseline list --json", name="list")
def list_baselines() -> Result:
    """Show what the store holds ($HARNESS_BASELINES, or a folder in the user's cache)."""
    from harness.cli import baselines

    return baselines.list_all()


@command(baseline_app, "baseline export 1a2b3c4d --out canary.baseline", name="export")
def export_baseline(*, key: opt.Key, out: opt.BundleOut) -> Result:
    """Write one baseline, with every answer of both its runs, to one file."""
    from harness.cli import baselines

    return baselines.export(key, out)


@command(baseline_app, "baseline import canary.baseline", name="import")
def import_baseline(*, bundle: opt.BundleFile) -> Result:
    """Check a file that `export` wrote and put it into the store; twice does no harm."""
    from harness.cli import baselines

    return baselines.import_bundle(bundle)


@command(baseline_app, "baseline rm 1a2b3c4d", name="rm")
def remove_baseline(*, key: opt.Key) -> Result:
    """Remove one baseline from the store."""
    from harness.cli import baselines

    return baselines.remove(key)
