"""The `vllm` engine: a folder served by a vLLM process, and what that process really computes."""

import dataclasses
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import Endpoint, EngineSpec, Severity
from harness.engines import SETUP, Capability, capability_of, read_demands, refuse_unsupported
from harness.errors import EngineError, PrerequisiteError, UsageError
from harness.models import open_source
from harness.processes import mark_of
from harness.serve.process import (
    LOCALHOST,
    KeptProcess,
    RunningServer,
    kept_records,
    reserved_port,
    started,
)
from harness.serve.readiness import StartLimits, naming_its_death, wait_until_ready
from harness.serve.vllm.answers import Answers, ask_abilities, flags_of
from harness.serve.vllm.arguments import (
    MODULE,
    PLUGIN,
    SERVED_NAME,
    Setting,
    Surrounded,
    api_server,
    own_variables,
    server_flags,
)
from harness.serve.vllm.endpoint import ServerFacts, endpoint_of
from harness.serve.vllm.environment import VllmEnvironment, ask_vllm
from harness.serve.vllm.gaps import foretold
from harness.serve.vllm.observe import Observed, clear_reports, observe
from harness.serve.vllm.options import refuse_malformed
from harness.serve.vllm.variables import (
    KEY_VARIABLE,
    left_out,
    process_environment,
    recorded_arguments,
)
from harness.serve.vllm.waiting import WaitingServer

_log = logging.getLogger("harness.serve")
LOG_FILE = "server.log"
_LOG_BYTES = 8 << 20
_KEY_BYTES = 32


class Site(NamedTuple):
    """Where a server runs, and what is kept of it."""

    records: Path | None = None
    """Where the log and the load reports are kept; None keeps none."""
    gpus: tuple[int, ...] | None = None
    """The GPUs that it may use; None leaves it to the environment."""
    limits: StartLimits = StartLimits()
    """How long to wait for it."""
    waiting: WaitingServer | None = None
    """A process that was begun for it."""


@contextmanager
def serve_vllm(engine: EngineSpec, directory: Path, site: Site) -> Iterator[Endpoint]:
    """Serve the checkpoint in `directory` from a vLLM process until the context ends.

    Args:
        engine: what to serve it with.
        directory: folder of the checkpoint.
        site: where.

    Raises:
        PrerequisiteError: there is no vLLM that can.
        EngineError: the server failed; the message holds the end of its log.
    """
    environment = ask_vllm(engine.place)
    setting = setting_of(engine, directory, environment, ask_abilities(environment))
    with ExitStack() as stack:
        records = stack.enter_context(kept_records(site.records))
        variables = _variables(environment, setting.surrounded, records, site.gpus)
        launch = _Launch(environment, server_flags(setting), variables, records)
        _log.info("serve: vLLM %s (%s)", environment.version, environment.platform)
        if names := left_out():
            _log.info("serve: not passed on to the server: %s", ", ".join(names))
        server = stack.enter_context(_started(setting, launch, site.waiting))
        length, observed = wait_and_look(server, setting, records=records, limits=site.limits)
        place = ServerFacts(
            base_url=server.base_url,
            version=f"{environment.version} (torch {environment.torch})",
            device=observed.device or environment.device,
            log=server.log_path,
            max_model_len=length,
            arguments=recorded_arguments(launch.flags, variables),
            key=server.key,
            process=None if server.session is None else mark_of(server.session),
        )
        with naming_its_death(server):
            yield endpoint_of(setting, observed, place)


@contextmanager
def waiting_vllm(
    engine: EngineSpec, num_bytes: Callable[[], int], site: Site
) -> Iterator[WaitingServer]:
    """Begin the process of a server that is told later what to serve; it is gone at the end.

    Args:
        engine: what will serve it.
        num_bytes: says how much the tensors will hold, where the environment depends on it.
        site: where; its records are kept.

    Raises:
        PrerequisiteError: there is no vLLM.
    """
    environment = ask_vllm(engine.place)
    place = Surrounded(
        platform=environment.platform,
        has_flashinfer=environment.has_flashinfer,
        num_bytes=num_bytes() if environment.platform == "cpu" else 0,
        share=engine.share,
    )
    with kept_records(site.records) as records:
        variables = _variables(environment, place, records, site.gpus)
        waiting = WaitingServer(environment, variables, records)
        try:
            yield waiting
        finally:
            waiting.end()


def _variables(
    environment: VllmEnvironment, place: Surrounded, records: Path, gpus: tuple[int, ...] | None
) -> dict[str, str]:
    """Return the whole environment of a server's process, with a key of its own."""
    own = own_variables(place, plugin=str(PLUGIN), records=str(records), key=draw_key())
    return process_environment(own, python=Path(environment.python), gpus=gpus)


def draw_key() -> str:
    """Return an API key for one server: it is passed on in memory and kept nowhere."""
    return secrets.token_urlsafe(_KEY_BYTES)


def setting_of(
    engine: EngineSpec, directory: Path, environment: VllmEnvironment, answers: Answers
) -> Setting:
    """Return what the server's arguments follow from.

    Args:
        engine: what to serve with.
        directory: folder of what is served.
        environment: the vLLM, in a folder or in an image.
        answers: what that vLLM says of itself.

    Raises:
        PrerequisiteError: this vLLM is too old, or cannot load the checkpoint.
        UsageError: an `--engine-arg` is malformed or not for the user to decide.
    """
    given = flags_of(engine.arguments, answers, place=f"vLLM {environment.version}")
    source = open_source(str(directory.resolve()))
    capability = capability_of(environment.version, environment.platform, answers.abilities)
    demands = read_demands(source)
    refuse_unsupported(capability, demands)
    return Setting(
        engine=engine,
        source=source,
        demands=demands,
        capability=capability,
        has_flashinfer=environment.has_flashinfer,
        user_flags=given,
    )


def check_vllm(engine: EngineSpec) -> EngineSpec:
    """Return `engine` with the place and version of the vLLM that it will use.

    Raises:
        PrerequisiteError: none is found, it is too old, or GPUs are missing.
        UsageError: an `--engine-arg` is malformed or not for the user to decide.
    """
    refuse_malformed(engine.arguments)
    environment = ask_vllm(engine.place)
    place = f"vLLM {environment.version} in '{environment.python}'"
    checked = check_environment(engine, environment, place=place)
    check_answers(engine, ask_abilities(environment), place=place)
    return dataclasses.replace(checked, place=environment.python)


def check_environment(
    engine: EngineSpec, environment: VllmEnvironment, *, place: str
) -> EngineSpec:
    """Return `engine` with the version and the platform of the vLLM that it will use.

    Args:
        engine: as it was asked for.
        environment: the vLLM that was found, in a folder or in an image.
        place: how a message names it.

    Raises:
        PrerequisiteError: its version is too old, or GPUs are missing.
        UsageError: the CPU build is asked for more than one device.
    """
    capability_of(environment.version, environment.platform)
    num_gpus, needed = len(environment.gpus), engine.tensor_parallel_size
    if environment.platform == "cpu" and needed > 1:
        message = (
            f"--tensor-parallel-size {needed}: the CPU build runs on one device. Leave it out."
        )
        raise UsageError(message)
    if environment.platform == "cuda" and num_gpus < needed:
        message = (
            f"{place} is built for CUDA and needs {needed} GPU(s), the driver shows {num_gpus}. "
            "Use fewer, or vLLM's CPU build (scripts/setup-vllm cpu, docker/README.md)."
        )
        raise PrerequisiteError(message)
    return dataclasses.replace(engine, version=environment.version, device=environment.platform)


def check_answers(engine: EngineSpec, answers: Answers, *, place: str) -> None:
    """Refuse a vLLM whose server could not be kept safe, and options that it does not take.

    Raises:
        PrerequisiteError: what guards its server has no place in this version.
        UsageError: an `--engine-arg` is not for the user to decide.
    """
    abilities = answers.abilities
    if lacking := sorted(abilities.mandatory & abilities.missing.keys()):
        message = (
            f"{place} cannot be served safely, harness's plugin has no place for {lacking[0]} in "
            f"it: {abilities.missing[lacking[0]]}. Name another with --vllm PATH, or make one "
            f"with {SETUP}."
        )
        raise PrerequisiteError(message)
    flags_of(engine.arguments, answers, place=place)
    for gap in foretold(abilities):
        _warn_once(f"{place}: {gap}")


@cache
def _warn_once(gap: str) -> None:
    """Say before hours of work what its verdict will lack; an engine is resolved several times."""
    _log.warning("serve: %s", gap)


def vllm_capability(engine: EngineSpec) -> Capability:
    """Return what the vLLM of `engine` does: as it was seen, or as it says.

    Raises:
        PrerequisiteError: it is no longer there, or too old.
    """
    environment = ask_vllm(engine.place)
    abilities = ask_abilities(environment).abilities
    return capability_of(environment.version, environment.platform, abilities)


def vllm_command(engine: EngineSpec, directory: Path) -> tuple[str, ...]:
    """Return the line that serves `directory` as this engine does, to be typed by hand."""
    environment = ask_vllm(engine.place)
    flags = server_flags(setting_of(engine, directory, environment, ask_abilities(environment)))
    if environment.platform == "cuda":
        variables = () if environment.has_flashinfer else ("env", "VLLM_USE_FLASHINFER_SAMPLER=0")
        return (*variables, "vllm", "serve", str(directory), *flags)
    plugin = ("env", f"PYTHONPATH={PLUGIN}")
    return (*plugin, environment.python, "-m", MODULE, "--model", str(directory), *flags)


class _Launch(NamedTuple):
    """What a server process is started with."""

    environment: VllmEnvironment
    flags: tuple[str, ...]
    variables: Mapping[str, str]
    records: Path


@contextmanager
def _started(
    setting: Setting, launch: _Launch, waiting: WaitingServer | None
) -> Iterator[KeptProcess]:
    clear_reports(launch.records)
    log_path = launch.records / LOG_FILE
    log_path.unlink(missing_ok=True)

    def arguments(port: int) -> tuple[str, ...]:
        model = str(setting.source.path)
        return api_server(launch.flags, model=model, host=LOCALHOST, port=port)

    if waiting is not None and waiting.fits(launch.environment, launch.variables):
        with waiting.told(arguments(waiting.port), log_path=log_path) as server:
            _log.info("serve: its process has imported for %.1f s before", waiting.head_start_s)
            yield server
        return
    if waiting is not None and not waiting.is_spent:
        _log.info("serve: the process that was begun is gone, or another is wanted by now")
        waiting.end()
    with reserved_port() as port:
        command = (launch.environment.python, "-m", MODULE, *arguments(port))
        key = launch.variables[KEY_VARIABLE]
        with started(command, launch.variables, port=port, log_path=log_path, key=key) as server:
            yield server


def wait_and_look(
    server: RunningServer, setting: Setting, *, records: Path, limits: StartLimits
) -> tuple[int, Observed]:
    """Wait for a server, a process or a container, and look at what it loaded and chose.

    Returns:
        The context length that it takes, in tokens, and what was seen.

    Raises:
        EngineError: it never became ready; explained by what was loaded, where that is known.
    """
    try:
        length = wait_until_ready(server, model=SERVED_NAME, limits=limits)
    except EngineError as error:
        observed = observe(setting.demands, records=records, log=read_log(server))
        for finding in observed.findings if observed.loaded is not None else ():
            if finding.severity is Severity.ERROR:
                message = f"{finding.id}: {finding.message}. Then {error}"
                raise EngineError(message, reason=finding.reason) from error
        raise
    observed = observe(setting.demands, records=records, log=read_log(server))
    report_observed(observed)
    return length, observed


def report_observed(observed: Observed) -> None:
    """Say what was seen, a line each."""
    for part, kernel in observed.kernels.items():
        _log.info("serve: %s: %s", part, kernel)
    for finding in observed.findings:
        _log.info("serve: %s: %s: %s", finding.severity, finding.id, finding.message)
    for gap in observed.not_observed:
        _log.info("serve: not seen, %s: %s", gap.reason, gap.message)


def read_log(server: RunningServer) -> str:
    """Return the log, of a very long one its beginning and its end, without the key."""
    with server.log_path.open("rb") as file:
        text = file.read(_LOG_BYTES)
        size = os.fstat(file.fileno()).st_size
        file.seek(max(file.tell(), size - _LOG_BYTES))
        text += file.read(_LOG_BYTES)
    return text.decode("utf-8", errors="replace").replace(server.key, "***")
