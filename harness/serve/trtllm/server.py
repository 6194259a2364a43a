"""A `trtllm-serve` process: started, waited for, described as far as it can be seen.

It does not tell what it loaded nor which kernels it chose, so the Deployment says that neither is
known. It wants no API key, so others on this machine could ask it too; that whoever answers is the
process that was started is proven as for every server, by the kernel's list of sockets.

Source of flags and paths: NVIDIA/TensorRT-LLM, tensorrt_llm/commands/serve.py, tensorrt_llm/serve/
openai_server.py. It was never run here.
"""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.artifacts import Deployment, Endpoint, EngineSpec, Gap
from harness.engines import Demands, read_demands
from harness.errors import ReasonCode, UsageError
from harness.models import Source, open_source
from harness.over_http import get
from harness.processes import mark_of
from harness.serve.process import LOCALHOST, RunningServer, kept_records, started
from harness.serve.readiness import StartLimits, naming_its_death, wait_until_ready
from harness.serve.trtllm.environment import TrtllmEnvironment, ask_trtllm
from harness.serve.vllm.server import LOG_FILE, draw_key
from harness.serve.vllm.variables import process_environment

_log = logging.getLogger("harness.serve")
MODULE = "tensorrt_llm.commands.serve"
_NUM_CONCURRENT = 32
_MAX_NUM_TOKENS = 8192
"""Its own default of tokens in a batch, within which a prompt must fit."""
_PERMITTED = {
    "max_batch_size": re.compile(r"[0-9]{1,6}"),
    "max_num_tokens": re.compile(r"[0-9]{1,7}"),
    "kv_cache_free_gpu_memory_fraction": re.compile(r"0\.[0-9]{1,6}"),
    "moe_expert_parallel_size": re.compile(r"[0-9]{1,4}"),
    "pipeline_parallel_size": re.compile(r"[0-9]{1,4}"),
}
"""What --engine-arg may set, with what a value looks like; the others may load code."""
_PASSED = (
    "OMPI_ALLOW_RUN_AS_ROOT",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
    "OPAL_PREFIX",
    "TLLM_LOG_LEVEL",
)
"""Variables that it needs where it runs in a container, as root and by MPI."""
_REQUEST_SECONDS = 5
_OK = 200


@contextmanager
def serve_trtllm(
    engine: EngineSpec,
    directory: Path,
    *,
    records: Path | None = None,
    gpus: tuple[int, ...] | None = None,
    limits: StartLimits | None = None,
) -> Iterator[Endpoint]:
    """Serve the checkpoint in `directory` from a `trtllm-serve` process until the context ends.

    Args:
        engine: what to serve it with, resolved.
        directory: folder of the checkpoint.
        records: where the log is kept; None keeps none.
        gpus: the GPUs that this server may use; None leaves it to the environment.
        limits: how long to wait for it.

    Raises:
        PrerequisiteError: there is no TensorRT-LLM.
        EngineError: the server failed; the message holds the end of its log.
    """
    environment = ask_trtllm(engine.place)
    source = open_source(str(directory.resolve()))
    flags = flags_of(engine)
    with ExitStack() as stack:
        records = stack.enter_context(kept_records(records))
        log_path = records / LOG_FILE
        log_path.unlink(missing_ok=True)
        variables = process_environment(
            _own_variables(), python=Path(environment.python), gpus=gpus
        )
        port = _free_port()
        command = (environment.python, "-m", MODULE, *_arguments(source, flags, port=port))
        _log.info("serve: TensorRT-LLM %s", environment.version)
        # It wants no key; the log is kept clean of one that nobody was given.
        starting = started(command, variables, port=port, log_path=log_path, key=draw_key())
        server = stack.enter_context(starting)
        wait_until_ready(
            server, model=_name(source), limits=limits or StartLimits(), length_of=_length
        )
        with naming_its_death(server):
            yield _endpoint(engine, source, environment, server)


def flags_of(engine: EngineSpec) -> tuple[str, ...]:
    """Return the flags that decide what is computed: without model, host and port.

    Raises:
        UsageError: an --engine-arg is not for the user to decide, or has no such value.
    """
    settings = {"backend": "pytorch"}
    if engine.max_model_len is not None:
        settings["max_seq_len"] = str(engine.max_model_len)
        settings["max_num_tokens"] = str(max(engine.max_model_len, _MAX_NUM_TOKENS))
    if engine.tensor_parallel_size > 1:
        settings["tp_size"] = str(engine.tensor_parallel_size)
    settings |= dict(map(_argument, engine.arguments))
    return tuple(part for name, value in settings.items() for part in (f"--{name}", value))


def trtllm_command(engine: EngineSpec, directory: Path) -> tuple[str, ...]:
    """Return the line that serves `directory` as this engine does, to be typed by hand."""
    return ("trtllm-serve", "serve", str(directory), *flags_of(engine))


def _argument(text: str) -> tuple[str, str]:
    name, is_given, value = text.partition("=")
    name = name.replace("-", "_")
    if name not in _PERMITTED or not is_given:
        message = (
            f"--engine-arg {text}: of TensorRT-LLM's options these may be set as KEY=VALUE: "
            f"{', '.join(sorted(_PERMITTED))}."
        )
        raise UsageError(message)
    if not _PERMITTED[name].fullmatch(value):
        message = f"--engine-arg {text}: '{value}' is no value of {name}. Type a number."
        raise UsageError(message)
    return name, value


def _arguments(source: Source, flags: tuple[str, ...], *, port: int) -> tuple[str, ...]:
    return ("serve", str(source.path), "--host", LOCALHOST, "--port", str(port), *flags)


def _own_variables() -> Mapping[str, str]:
    """Return the variables that harness sets in the server's environment."""
    inherited = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return inherited | {
        # Neither the folder that it runs in nor that of the model is one to import from.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _free_port() -> int:
    """Return a port that is free now: the server binds it itself, which shares it with nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.bind((LOCALHOST, 0))
        return int(holder.getsockname()[1])


def _name(source: Source) -> str:
    """Return the name that it gives the model: that of the folder."""
    return source.path.name


def _length(server: RunningServer, model: str, health: str) -> int | None:
    """Return 0 once the server lists the model; it does not tell how long a prompt may be.

    Raises:
        EngineError: it is not the server that listens.
    """
    if not server.is_listening():
        return None
    healthy = get(f"{server.base_url}{health}", seconds=_REQUEST_SECONDS)
    listed = get(f"{server.base_url}/v1/models", seconds=_REQUEST_SECONDS)
    if healthy is None or healthy.status != _OK or listed is None:
        return None
    entries = listed.values().get("data")
    names = (
        [e.get("id") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    )
    return 0 if model in names else None


def _endpoint(
    engine: EngineSpec, source: Source, environment: TrtllmEnvironment, server: RunningServer
) -> Endpoint:
    demands = read_demands(source)
    session = getattr(server, "session", None)
    return Endpoint(
        base_url=server.base_url,
        model=_name(source),
        tokenizer=str(source.path),
        max_model_len=engine.max_model_len or source.max_positions or _MAX_NUM_TOKENS,
        num_concurrent=_NUM_CONCURRENT,
        deployment=_deployment(engine, source, environment, demands, server.log_path),
        process=None if session is None else mark_of(session),
        dialect="trtllm",
    )


def _deployment(
    engine: EngineSpec,
    source: Source,
    environment: TrtllmEnvironment,
    demands: Demands,
    log_path: Path,
) -> Deployment:
    return Deployment(
        engine=engine.name,
        version=f"{environment.version} (torch {environment.torch})",
        model=str(source.path),
        checkpoint_digest=source.digest,
        device=environment.gpus[0] if environment.gpus else "cuda",
        dtype=engine.dtype,
        arguments=flags_of(engine),
        kernels={},
        exercised=(),
        declared=demands.declared,
        log=str(log_path),
        tensor_parallel_size=engine.tensor_parallel_size,
        not_observed=(
            Gap(
                reason=ReasonCode.LOAD_NOT_RECONCILED,
                message="TensorRT-LLM does not tell which tensors of the files it loaded",
            ),
            Gap(
                reason=ReasonCode.KERNELS_UNKNOWN,
                message="TensorRT-LLM does not tell which kernels it chose",
                parts=demands.declared,
            ),
        ),
    )
