"""The door: which engine serves, whether this machine can run it, and what it can load."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import MODELOPT, Demands, capability_of
from harness.errors import (
    HarnessError,
    PrerequisiteError,
    ReasonCode,
    RecipeError,
    UsageError,
)
from harness.formats import get_scheme
from harness.serve.reference import Served, serve_reference
from harness.serve.vllm import (
    check_vllm,
    check_vllm_serves,
    serve_vllm,
    vllm_command,
)

ENGINES = ("reference", "vllm", "docker")
_DTYPES = ("float32", "bfloat16", "float16")


@contextmanager
def serve(
    engine: EngineSpec,
    directory: Path,
    *,
    records: Path | None = None,
    gpus: tuple[int, ...] | None = None,
) -> Iterator[Served | Endpoint]:
    """Serve the checkpoint in `directory`, quantized or not, until the context ends.

    Args:
        engine: what to serve it with.
        directory: folder of the checkpoint.
        records: where a server's log and load reports are kept.
        gpus: the GPUs that a server may use; None leaves it to the environment.

    Raises:
        PrerequisiteError: this machine cannot run the engine.
        ModelError: the folder is no checkpoint.
        EngineError: the engine cannot load it; a missing scale is never replaced by a default.
    """
    if engine.name == "reference":
        resolve_engine(engine)
        with serve_reference(engine, directory) as served:
            yield served
    else:
        with _served_over_http(engine, directory, records, gpus) as endpoint:
            yield endpoint


def resolve_engine(engine: EngineSpec) -> EngineSpec:
    """Return `engine` with what this machine decides filled in: the place and version of vLLM.

    Raises:
        PrerequisiteError: this version or this machine cannot run it, with what to do.
    """
    match engine.name:
        case "reference":
            _refuse_ignored(engine)
            _check_reference(engine)
            return engine
        case "vllm":
            return check_vllm(engine)
        case "docker":
            from harness.serve.docker import check_docker  # noqa: PLC0415 -- its SDK is optional

            return check_docker(engine)
        case _:
            message = f"there is no engine '{engine.name}'. Use --engine {' or '.join(ENGINES)}."
            raise PrerequisiteError(message)


def check_served(engine: EngineSpec, demands: Demands) -> None:
    """Refuse a checkpoint that the engine cannot load, before anything is calibrated.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    match engine.name:
        case "vllm":
            check_vllm_serves(engine, demands)
        case "docker":
            from harness.serve.docker import check_docker_serves  # noqa: PLC0415 -- optional SDK

            check_docker_serves(engine, demands)
        case _:
            _check_reference_serves(demands)


def has_emulation(engine: EngineSpec, demands: Demands) -> bool:
    """Return whether declared numerics are emulated, where deployed ones have kernels.

    Args:
        engine: as `resolve_engine` returned it.
        demands: what the checkpoint asks of it.
    """
    if engine.name == "reference":
        return False
    capability = capability_of(engine.version or "", engine.device)
    declared, deployed = (capability.emulation(demands, declared=one) for one in (True, False))
    return declared != deployed


def serve_command(engine: EngineSpec, directory: Path) -> tuple[str, ...]:
    """Return the line that a user types to deploy `directory` as it was exercised.

    Where the engine was no vLLM, or is no longer there, it is the plain line for any vLLM.
    """
    plain = ("vllm", "serve", str(directory))
    if engine.name != "vllm":
        return plain
    try:
        return vllm_command(engine, directory)
    except HarnessError:
        return plain


def _served_over_http(
    engine: EngineSpec, directory: Path, records: Path | None, gpus: tuple[int, ...] | None
) -> AbstractContextManager[Endpoint]:
    if engine.name == "docker":
        from harness.serve.docker import serve_docker  # noqa: PLC0415 -- its SDK is optional

        return serve_docker(engine, directory, records=records, gpus=gpus)
    return serve_vllm(resolve_engine(engine), directory, records=records, gpus=gpus)


def _refuse_ignored(engine: EngineSpec) -> None:
    """Refuse what the reference engine would not heed.

    Raises:
        UsageError: it is for a server, and this is none.
    """
    given = {
        f"--engine-arg {engine.arguments[0]}" if engine.arguments else "": engine.arguments,
        f"--tensor-parallel-size {engine.tensor_parallel_size}": engine.tensor_parallel_size > 1,
        f"--vllm {engine.vllm}": engine.vllm,
        f"--image {engine.image}": engine.image,
    }
    for option, is_given in given.items():
        if is_given:
            message = (
                f"{option} is for a server, and the reference engine is none. Leave it out, or "
                "type --engine vllm or --engine docker."
            )
            raise UsageError(message)


def _check_reference_serves(demands: Demands) -> None:
    if not demands.algorithms:
        return
    if demands.layout != MODELOPT:
        message = (
            f"the reference engine does not read the layout of {demands.layout}. "
            "Type --engine vllm."
        )
        raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)
    for algorithm in sorted(demands.algorithms):
        try:
            get_scheme(algorithm)
        except RecipeError as error:
            message = f"the reference engine cannot load it: {error} Type --engine vllm."
            raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT) from error


def _check_reference(engine: EngineSpec) -> None:
    if engine.dtype not in _DTYPES:
        message = f"the reference engine has no type '{engine.dtype}'. Use {', '.join(_DTYPES)}."
        raise PrerequisiteError(message)
    try:
        device = torch.device(engine.device)
    except RuntimeError as error:
        message = f"'{engine.device}' is no torch device. Use cpu, cuda or cuda:1."
        raise PrerequisiteError(message) from error
    is_absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if is_absent or device.type not in {"cpu", "cuda"}:
        message = (
            f"device '{engine.device}' is not there: torch sees {torch.cuda.device_count()} CUDA "
            "device(s). Use --device cpu."
        )
        raise PrerequisiteError(message)
