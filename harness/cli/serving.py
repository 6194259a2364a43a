"""The commands around a server: serve, score and doctor."""

import dataclasses
import shlex
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness import score as scoring
from harness.arms import asks_elsewhere
from harness.artifacts import Endpoint, EngineSpec, Suite, save, to_json
from harness.cli import text
from harness.cli.console import Result, emit
from harness.doors import check_apart, check_folder
from harness.errors import ExitCode, UsageError
from harness.models import Source, open_source
from harness.preflight import check_answerable, check_has_address, check_suite, engine_for
from harness.recipe import Request, load_engine, load_suite, suite_of
from harness.serve import Served, examine, serve, serve_command, wait_until_gone

_SCHEMES = ("http://", "https://")
_LONGEST = 4096
"""Tokens of prompt and answer together, where nothing was typed: more takes memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What is known of a server that somebody else runs."""

    tokenizer: Path | None
    model: str | None


def score(request: Request, server: Server, out: Path) -> Result:
    """Score a folder, served by the engine, or a URL."""
    suite = suite_of(request, str(request.suite))
    is_url = request.model.startswith(_SCHEMES)
    suite = check_suite(suite, None if is_url else open_source(request.model))
    check_folder(out)
    with ExitStack() as stack:
        if is_url:
            endpoint = scoring.endpoint_of(
                request.model, suite=suite, model=server.model, tokenizer=server.tokenizer
            )
            out.mkdir(parents=True, exist_ok=True)
            served: Served | Endpoint = endpoint
        else:
            check_answerable(load_engine(request, suite), suite)
            engine, source = _prepare(request, suite)
            check_has_address(engine, suite)
            folder = source.path
            check_apart(out, [folder])
            out.mkdir(parents=True, exist_ok=True)
            served = stack.enter_context(serve(engine, folder, records=out))
        elsewhere = asks_elsewhere(served, suite, arm="candidate")
        card = scoring.score(served, suite, arm="candidate", into=out, elsewhere=elsewhere)
    return Result(text=text.of_scorecard(card), values=to_json(card))


def serve_until_interrupted(
    request: Request, max_model_len: int | None, out: Path | None, *, as_json: bool
) -> None:
    """Serve a folder; Ctrl-C and SIGTERM end it."""
    if out is not None:
        check_folder(out)
    suite = load_suite("canary")
    engine, source = _prepare(request, suite)
    folder, longest = source.path, max_model_len or min(_LONGEST, source.max_positions or _LONGEST)
    engine = dataclasses.replace(engine, max_model_len=longest)
    if out is not None:
        check_apart(out, [folder])
    if engine.name == "reference":
        message = (
            "the reference engine answers in this process and has no URL. Type --engine vllm or "
            "--engine docker ('harness doctor' says what this machine has)."
        )
        raise UsageError(message)
    with ExitStack() as stack:
        records = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-")))
        records.mkdir(parents=True, exist_ok=True)
        served = stack.enter_context(serve(engine, folder, records=records))
        save(served.deployment, records / "deployment.json")
        if not isinstance(served, Endpoint):
            raise TypeError(type(served))
        emit(_ready(served, engine, folder), as_json=as_json)
        wait_until_gone(served.base_url)


def _ready(served: Endpoint, engine: EngineSpec, folder: Path) -> Result:
    values = {
        "base_url": f"{served.base_url}/v1",
        "model": served.model,
        "api_key": served.api_key,
        "deployment": to_json(served.deployment),
    }
    lines = [
        f"ready: {served.base_url}/v1 serves model '{served.model}'",
        f"API key: {served.api_key}",
        "requests bring it as 'Authorization: Bearer KEY'; harness score takes HARNESS_API_KEY",
        *text.of_deployment(served.deployment),
        f"the same by hand: {shlex.join(serve_command(engine, folder))}",
        "Ctrl-C ends it",
    ]
    return Result(text="\n".join(lines), values=values)


def _prepare(request: Request, suite: Suite) -> tuple[EngineSpec, Source]:
    """Resolve the engine and check that it can load the folder."""
    source = open_source(request.model)
    return engine_for(load_engine(request, suite), source), source


def doctor() -> Result:
    """Say what this machine can run."""
    found = examine()
    lines = []
    for diagnosis in found:
        lines.append(
            f"{'ok' if diagnosis.ok else 'MISSING':<8} {diagnosis.name}: {diagnosis.found}"
        )
        if not diagnosis.ok and diagnosis.fix:
            lines.append(f"{'':<8} fix: {diagnosis.fix}")
    return Result(text="\n".join(lines), values=[to_json(d) for d in found], exit_code=ExitCode.GO)
