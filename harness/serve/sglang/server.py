"""The `sglang` engine: a folder served by an SGLang process, and what that process really computes.

The process is kept as vLLM's is (serve/process.py). SGLang takes its API key as an argument, which
every user of the machine could read in the list of processes, so it is handed over in a file of
settings that only this user can read and that is removed when the server is ready.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.artifacts import Deployment, Endpoint, EngineSpec, Finding, Severity
from harness.engines import Demands, Place, read_demands, refuse_unserved, sglang_flag
from harness.errors import EngineError, PrerequisiteError, ReasonCode, UsageError
from harness.kept import blot_out
from harness.models import Source, open_source
from harness.over_http import get
from harness.processes import mark_of
from harness.serve.process import (
    LOCALHOST,
    KeptProcess,
    kept_records,
    reserved_port,
    started,
)
from harness.serve.readiness import StartLimits, naming_its_death, wait_until_ready
from harness.serve.sglang.environment import SglangEnvironment, ask_answers, ask_sglang
from harness.serve.sglang.permitted import OF_SGLANG
from harness.serve.sglang.variables import own_variables, recorded, server_environment
from harness.serve.sglang.words import WORDS
from harness.serve.vllm.answers import Answers, flags_of
from harness.serve.vllm.arguments import PLUGIN, SERVED_NAME
from harness.serve.vllm.observe import Observed, clear_reports, observe
from harness.serve.vllm.options import refuse_malformed
from harness.serve.vllm.server import LOG_FILE, draw_key, read_log, report_observed

_log = logging.getLogger("harness.serve")
MODULE = "sglang.launch_server"
_NUM_CONCURRENT = 64
_INFO_SECONDS = 30
_TESTED = frozenset({"0.5.15"})
_RESOLVED = {
    "linear": "fp4_gemm_runner_backend",
    "experts": "moe_runner_backend",
    "attention": "attention_backend",
    "kv_cache": "kv_cache_dtype",
}
"""What /server_info tells of each part; `auto` tells nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a server's arguments follow from."""

    engine: EngineSpec
    source: Source
    demands: Demands
    environment: SglangEnvironment
    user_flags: tuple[str, ...]


@contextmanager
def serve_sglang(
    engine: EngineSpec,
    directory: Path,
    *,
    records: Path | None = None,
    gpus: tuple[int, ...] | None = None,
    limits: StartLimits | None = None,
) -> Iterator[Endpoint]:
    """Serve the checkpoint in `directory` from an SGLang process until the context ends.

    Args:
        engine: what to serve it with.
        directory: folder of the checkpoint.
        records: where the log and the load reports are kept; None keeps none.
        gpus: the GPUs that this server may use; None leaves it to the environment.
        limits: how long to wait for it.

    Raises:
        PrerequisiteError: there is no SGLang that can.
        EngineError: the server failed; the message holds the end of its log.
    """
    environment = ask_sglang(engine.place)
    setting = setting_of(engine, directory, environment, ask_answers(environment))
    with ExitStack() as stack:
        records = stack.enter_context(kept_records(records))
        variables = server_environment(
            own_variables(plugin=str(PLUGIN), records=str(records)),
            python=Path(environment.python),
            gpus=gpus,
        )
        _log.info("serve: SGLang %s (%s)", environment.version, environment.platform)
        server = stack.enter_context(_started(setting, variables, records))
        length, observed = _wait_and_look(server, setting, records, limits or StartLimits())
        with naming_its_death(server):
            yield _endpoint(setting, observed, server, (length, variables))


def setting_of(
    engine: EngineSpec, directory: Path, environment: SglangEnvironment, answers: Answers
) -> Setting:
    """Return what the server's arguments follow from.

    Raises:
        PrerequisiteError: this SGLang cannot load the checkpoint.
        UsageError: an `--engine-arg` is malformed or not for the user to decide.
    """
    given = flags_of(engine.arguments, answers, place=environment.name, permission=OF_SGLANG)
    source = open_source(str(directory.resolve()))
    demands = read_demands(source)
    check_demands(demands, environment, answers)
    return Setting(
        engine=engine, source=source, demands=demands, environment=environment, user_flags=given
    )


def check_sglang(engine: EngineSpec) -> EngineSpec:
    """Return `engine` with the place and version of the SGLang that it will use.

    Raises:
        PrerequisiteError: none is found, or GPUs are missing.
        UsageError: an `--engine-arg` is malformed or not for the user to decide.
    """
    refuse_malformed(engine.arguments, OF_SGLANG)
    if engine.image:
        message = f"--image {engine.image} is for the docker engine. Leave it out."
        raise UsageError(message)
    environment = ask_sglang(engine.place)
    needed, found = engine.tensor_parallel_size, len(environment.gpus)
    if found < needed:
        message = (
            f"{environment.name} needs {needed} GPU(s), the driver shows {found}. Use --engine "
            "vllm with its CPU build, or a machine that has them."
        )
        raise PrerequisiteError(message)
    flags_of(
        engine.arguments, ask_answers(environment), place=environment.name, permission=OF_SGLANG
    )
    return dataclasses.replace(
        engine,
        version=environment.version,
        device=environment.platform,
        place=environment.python,
    )


def check_demands(demands: Demands, environment: SglangEnvironment, answers: Answers) -> None:
    """Refuse what this SGLang does not compute as it is declared.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    refuse_unserved(demands, place_of(environment, answers))


def place_of(environment: SglangEnvironment, answers: Answers) -> Place:
    """Return what of an environment decides the fate of a checkpoint."""
    return Place(environment.version, environment.capability, answers.abilities.methods)


def server_flags(setting: Setting) -> tuple[str, ...]:
    """Return the flags that decide what is computed: without model, name, host and port."""
    engine, flags = setting.engine, list[str]()
    if engine.max_model_len is not None:
        flags += ["--context-length", str(engine.max_model_len)]
    if engine.tensor_parallel_size > 1:
        flags += ["--tp-size", str(engine.tensor_parallel_size)]
    if method := sglang_flag(setting.demands):
        flags += ["--quantization", method]
    if setting.demands.kv == "fp8":
        flags += ["--kv-cache-dtype", "fp8_e4m3"]
    return (*flags, *setting.user_flags)


@contextmanager
def _started(
    setting: Setting, variables: Mapping[str, str], records: Path
) -> Iterator[KeptProcess]:
    clear_reports(records)
    log_path = records / LOG_FILE
    log_path.unlink(missing_ok=True)
    key = f"h{draw_key()}"  # a word that begins with a dash would be read as an option
    with reserved_port() as port, TemporaryDirectory(prefix="harness-sglang-key-") as private:
        place = Path(private) / "key.yaml"
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"api-key: {key}\n")
        command = (
            setting.environment.python,
            *("-m", MODULE, "--model-path", str(setting.source.path)),
            *("--served-model-name", SERVED_NAME, "--host", LOCALHOST, "--port", str(port)),
            *("--config", str(place), *server_flags(setting)),
        )
        with started(command, variables, port=port, log_path=log_path, key=key) as server:
            yield server


def _wait_and_look(
    server: KeptProcess, setting: Setting, records: Path, limits: StartLimits
) -> tuple[int, Observed]:
    """Wait for a server, and look at what it loaded and chose.

    Raises:
        EngineError: it never became ready; explained by what was loaded, where that is known.
    """

    def look(resolved: Mapping[str, Sequence[str]]) -> Observed:
        log = read_log(server)
        return observe(setting.demands, records=records, log=log, words=WORDS, resolved=resolved)

    try:
        length = wait_until_ready(
            server, model=SERVED_NAME, limits=limits, health="/health_generate"
        )
    except EngineError as error:
        observed = look({})
        for finding in observed.findings if observed.loaded is not None else ():
            if finding.severity is Severity.ERROR:
                message = f"{finding.id}: {finding.message}. Then {error}"
                raise EngineError(message, reason=finding.reason) from error
        raise
    blot_out(server.key, server.log_path)  # SGLang prints its arguments
    observed = look(_resolved(server))
    report_observed(observed)
    return length, observed


def _resolved(server: KeptProcess) -> Mapping[str, Sequence[str]]:
    """Return what the server says that it chose, by part; what it left open is not told."""
    found = get(f"{server.base_url}/server_info", seconds=_INFO_SECONDS, key=server.key)
    told = found.values() if found is not None else {}
    named = {part: told.get(name) for part, name in _RESOLVED.items()}
    return {
        part: (value,)
        for part, value in named.items()
        if isinstance(value, str) and (value != "auto" or part == "kv_cache")
    }


def _endpoint(
    setting: Setting,
    observed: Observed,
    server: KeptProcess,
    running: tuple[int, Mapping[str, str]],
) -> Endpoint:
    length, variables = running
    environment = setting.environment
    deployment = Deployment(
        engine=setting.engine.name,
        version=f"{environment.version} (torch {environment.torch})",
        model=str(setting.source.path),
        checkpoint_digest=setting.source.digest,
        device=observed.device or (environment.gpus or (environment.platform,))[0],
        dtype=observed.dtype,
        arguments=recorded(server_flags(setting), variables),
        kernels=observed.kernels,
        exercised=observed.exercised,
        declared=setting.demands.declared,
        log=str(server.log_path),
        tensor_parallel_size=setting.engine.tensor_parallel_size,
        loaded=observed.loaded,
        findings=(*observed.findings, *_untested(environment)),
        not_observed=observed.not_observed,
    )
    return Endpoint(
        base_url=server.base_url,
        model=SERVED_NAME,
        tokenizer=str(setting.source.path),
        max_model_len=length,
        num_concurrent=_NUM_CONCURRENT,
        deployment=deployment,
        api_key=server.key,
        process=None if server.session is None else mark_of(server.session),
        dialect="sglang",
    )


def _untested(environment: SglangEnvironment) -> tuple[Finding, ...]:
    """Return what is said of a version that was never served here: nothing against it."""
    if environment.version in _TESTED:
        return ()
    return (
        Finding(
            id="engine-untested",
            severity=Severity.WARNING,
            message=f"harness was not tested with SGLang {environment.version}; what it can do was "
            "asked of it, and what it does was observed",
            reason=ReasonCode.ENGINE_UNTESTED,
            incident="flags, kernels and loaders change between releases",
        ),
    )


def sglang_command(engine: EngineSpec, directory: Path) -> tuple[str, ...]:
    """Return the line that serves `directory` as this engine does, to be typed by hand."""
    environment = ask_sglang(engine.place)
    setting = setting_of(engine, directory, environment, ask_answers(environment))
    return ("sglang", "serve", "--model-path", str(directory), *server_flags(setting))
