"""`harness gate` of two deployments that somebody else runs: which options go together."""

import dataclasses
from dataclasses import dataclass, fields
from pathlib import Path

from harness import runs
from harness.artifacts import to_json
from harness.cli import text
from harness.cli.commands import check_run_apart, ended, found_by_a_plan
from harness.cli.console import Result
from harness.deployments import deployments_gate
from harness.errors import UsageError
from harness.preflight import Servers, preflight_deployments, summarize_deployments
from harness.request import SERVING, Request

_BOTH = "Type CHECKPOINT and --baseline, or --candidate-url and --baseline-url."


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """Options that are for deployments alone."""

    candidate_url: str | None = None
    baseline_url: str | None = None
    candidate_model: str | None = None
    baseline_model: str | None = None
    tokenizer: Path | None = None
    checkpoint: Path | None = None


def servers_of(typed: Typed, request: Request, candidate: Path | None) -> Servers | None:
    """Return the deployments that were typed; None where a checkpoint is to be served.

    Raises:
        UsageError: options that do not go together.
    """
    given = {f"--{f.name.replace('_', '-')}" for f in fields(typed) if getattr(typed, f.name)}
    if typed.candidate_url is None or typed.baseline_url is None:
        if given:
            needed = " and ".join(sorted({"--candidate-url", "--baseline-url"} - given))
            message = f"{min(given)} is for two deployments, and {needed} is not given. {_BOTH}"
            raise UsageError(message)
        return None
    _refuse_others(request, candidate)
    return Servers(
        candidate_url=typed.candidate_url,
        baseline_url=typed.baseline_url,
        candidate_model=typed.candidate_model,
        baseline_model=typed.baseline_model,
        tokenizer=typed.tokenizer,
        checkpoint=typed.checkpoint,
    )


def _refuse_others(request: Request, candidate: Path | None) -> None:
    """Refuse what is for a server that harness starts.

    Raises:
        UsageError: with the option.
    """
    if candidate is not None:
        message = (
            f"'{candidate}' is a checkpoint to serve, and two deployments are to be asked. Type "
            "--checkpoint before the folder that --candidate-url is said to run."
        )
        raise UsageError(message)
    defaults = {f.name: f.default for f in dataclasses.fields(Request)}
    spelled = {"model": "baseline", "engine_args": "engine-arg"}
    for name in ("model", "revision", "device", *SERVING):
        default = None if name == "model" else defaults[name]
        if getattr(request, name) != default:
            option = f"--{spelled.get(name, name.replace('_', '-'))}"
            message = (
                f"{option} is for a server that harness starts, and these are somebody else's. "
                "Leave it out."
            )
            raise UsageError(message)


def checkpoint_of(request: Request, candidate: Path | None) -> Path:
    """Return the checkpoint that is to be served and judged.

    Raises:
        UsageError: it, or what it is compared with, was not typed.
    """
    if candidate is None or request.model is None:
        missing = "CHECKPOINT" if candidate is None else "--baseline"
        message = f"{missing} is missing. {_BOTH}"
        raise UsageError(message)
    return candidate


def gate(
    request: Request, servers: Servers, run_dir: Path | None, *, plan: bool, fresh: bool
) -> Result:
    """Judge one deployment against another, or say what would be judged."""
    if plan:
        with found_by_a_plan():
            job = preflight_deployments(request, servers, into=run_dir)
        summary = summarize_deployments(job)
        return Result(text=text.of_deployments_plan(summary), values=to_json(summary))
    check_run_apart(run_dir, str(servers.checkpoint) if servers.checkpoint else None)
    with runs.refusals_reported(run_dir):
        job = preflight_deployments(request, servers, into=run_dir)
    path, record = runs.run_job(job, into=run_dir, fresh=fresh, work=deployments_gate)
    return ended(path, record)
