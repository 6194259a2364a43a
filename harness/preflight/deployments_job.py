"""Resolve and check a gate of two deployments that somebody else runs.

Each is asked for its models, its engine and its version. What would make the arms incomparable is
found here: other tokenizers, chats rendered in two places, room for longer prompts in one of them.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from harness import score
from harness.artifacts import Address, DeploymentsTrial, Endpoint, Gap, Suite, Waiver
from harness.engines import read_demands
from harness.errors import ModelError, ReasonCode, UsageError, WaiverError
from harness.models import Source, open_source
from harness.preflight.job import check_questions, check_written
from harness.preflight.problems import Problems
from harness.preflight.waived import check_waivers
from harness.recipe import Request, load_deployments, suite_of
from harness.verify import check_template

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
_ARMS = ("candidate", "baseline")
DEFAULT_SUITE = "nightly"


@dataclass(frozen=True, kw_only=True, slots=True)
class Servers:
    """What was typed of two deployments."""

    candidate_url: str
    baseline_url: str
    candidate_model: str | None = None
    """Name under which the candidate's server knows it; None where it has one model."""
    baseline_model: str | None = None
    tokenizer: Path | None = None
    """Folder of the tokenizer of both, where the servers' own are not on this machine."""
    checkpoint: Path | None = None
    """Folder that the candidate's server is said to run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployed:
    """A deployment in the place of a baseline's model."""

    endpoint: Endpoint
    model_digest: None = None
    """Of its files, which nobody has seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentsJob:
    """Two deployments that are ready to be asked."""

    recipe: DeploymentsTrial
    candidate: Endpoint
    baseline: Deployed
    checkpoint: Source | None
    scheme: str
    """As the checkpoint declares it; empty where none was named."""


def preflight_deployments(
    request: Request, servers: Servers, *, into: Path | None = None
) -> DeploymentsJob:
    """Resolve and check the gate of two deployments.

    Args:
        request: what was typed of suite, margins and policies.
        servers: where the deployments are.
        into: where the run will write.

    Raises:
        UsageError: everything that is wrong, with what to do about each.
    """
    problems = Problems()
    named = request.suite or DEFAULT_SUITE
    asked = problems.attempt(lambda: suite_of(request, named))
    folder = servers.checkpoint
    source = problems.attempt(lambda: open_source(str(folder))) if folder is not None else None
    suite = check_questions(problems, problems.demand(asked))
    arms = [problems.attempt(partial(_endpoint, servers, suite, arm)) for arm in _ARMS]
    problems.attempt(lambda: check_written(into, [source.path] if source is not None else []))
    candidate, baseline = (problems.demand(arm) for arm in arms)
    problems.attempt(lambda: _refuse_same(baseline, candidate))
    problems.attempt(lambda: _check_prompts(baseline, candidate, suite))
    where = {"candidate": _address(candidate), "baseline": _address(baseline)}
    trial = problems.attempt(lambda: load_deployments(request, suite, **where))
    if trial is not None:
        problems.attempt(lambda: _check_waivers(trial.waivers, source))
    known = problems.attempt(lambda: _said_to_run(candidate, source))
    problems.raise_any()
    return _job(problems.demand(trial), problems.demand(known), baseline, source)


def _job(
    trial: DeploymentsTrial, candidate: Endpoint, baseline: Endpoint, source: Source | None
) -> DeploymentsJob:
    """Give both arms the same room, so that long prompts are cut alike."""
    room = min(candidate.max_model_len, baseline.max_model_len)
    checkpoint = None if source is None else str(source.path)
    return DeploymentsJob(
        recipe=dataclasses.replace(trial, checkpoint=checkpoint),
        candidate=dataclasses.replace(candidate, max_model_len=room),
        baseline=Deployed(endpoint=dataclasses.replace(baseline, max_model_len=room)),
        checkpoint=source,
        scheme=read_demands(source).scheme if source is not None else "",
    )


def _endpoint(servers: Servers, suite: Suite, arm: str) -> Endpoint:
    is_candidate = arm == "candidate"
    return score.endpoint_of(
        servers.candidate_url if is_candidate else servers.baseline_url,
        suite,
        model=servers.candidate_model if is_candidate else servers.baseline_model,
        tokenizer=servers.tokenizer,
        arm=arm,
    )


def _address(endpoint: Endpoint) -> Address:
    return Address(
        url=endpoint.base_url,
        model=endpoint.model,
        protocol=endpoint.protocol,
        tokenizer=endpoint.tokenizer,
        engine=endpoint.deployment.engine,
        version=endpoint.deployment.version,
    )


def _refuse_same(baseline: Endpoint, candidate: Endpoint) -> None:
    """Refuse one model of one server in the place of two, whichever of its names was typed.

    Raises:
        UsageError: both arms would be the same.
    """
    is_one_server = _place(baseline.base_url) == _place(candidate.base_url)
    if is_one_server and candidate.model in {baseline.model, *baseline.also_called}:
        message = (
            f"both addresses are model '{candidate.model}' of one server, {candidate.base_url}. "
            "Name the deployment that it is compared with as --baseline-url, or another of its "
            "models with --baseline-model."
        )
        raise UsageError(message)


def _place(base_url: str) -> tuple[str, int | None, str]:
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS.get(parts.scheme)
    return "this machine" if host in _LOOPBACK else host, port, parts.path.rstrip("/")


def _check_prompts(baseline: Endpoint, candidate: Endpoint, suite: Suite) -> None:
    score.check_same_prompts(baseline, candidate, suite)
    asks_chats = suite.apply_chat_template or (
        suite.smoke is not None and suite.smoke.apply_chat_template
    )
    if asks_chats and baseline.protocol != "chat":
        check_template(suite.name, Path(baseline.tokenizer))


def _check_waivers(waivers: tuple[Waiver, ...], source: Source | None) -> None:
    if waivers and source is None:
        message = (
            "a waiver is for a checkpoint's files, and none are named. Type --checkpoint with the "
            "folder that the candidate's server runs, or leave --waivers out."
        )
        raise WaiverError(message)
    check_waivers(waivers)


def _said_to_run(candidate: Endpoint, source: Source | None) -> Endpoint:
    """Return the candidate with what the checkpoint declares, which nobody has seen it compute.

    Raises:
        ModelError: the checkpoint is not quantized.
    """
    if source is None:
        return candidate
    demands = read_demands(source)
    if not demands.scheme and not demands.kv:
        message = (
            f"'{source.name}' declares no quantization. Name the quantized checkpoint that the "
            "candidate's server runs with --checkpoint."
        )
        raise ModelError(message)
    deployment = candidate.deployment

    def extended(gap: Gap) -> Gap:
        is_kernels = gap.reason is ReasonCode.KERNELS_UNKNOWN
        return dataclasses.replace(gap, parts=demands.declared) if is_kernels else gap

    gaps = tuple(extended(gap) for gap in deployment.not_observed)
    known = dataclasses.replace(deployment, declared=demands.declared, not_observed=gaps)
    return dataclasses.replace(candidate, deployment=known)
