"""The door: which engine serves, whether this machine can run it, and what it can load."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Demands, Foretold
from harness.errors import HarnessError, PrerequisiteError
from harness.models import read_source, stored_weights
from harness.serve.reference import Served
from harness.serve.serving import Ahead, ServingEngine

ENGINES: Mapping[str, str] = {
    "reference": "harness.serve.in_process",
    "vllm": "harness.serve.vllm.engine",
    "docker": "harness.serve.docker",
    "sglang": "harness.serve.sglang.engine",
    "trtllm": "harness.serve.trtllm",
}
"""The module of each, imported when it is asked for: docker's needs a library that is optional."""
_EMULATES_NOTHING = frozenset({"sglang", "trtllm"})
_GENERATES_ALONE = frozenset({"trtllm"})
"""Engines whose servers have no log probabilities of a prompt."""


def engine_named(name: str) -> ServingEngine:
    """Return the engine of a name.

    Raises:
        PrerequisiteError: there is none, or it needs what is not installed.
    """
    if name not in ENGINES:
        message = f"there is no engine '{name}'. Use --engine {' or '.join(ENGINES)}."
        raise PrerequisiteError(message)
    engine: ServingEngine = import_module(ENGINES[name]).ENGINE
    return engine


@contextmanager
def serve(
    engine: EngineSpec,
    directory: Path,
    *,
    records: Path | None = None,
    gpus: tuple[int, ...] | None = None,
    ahead: Ahead | None = None,
) -> Iterator[Served | Endpoint]:
    """Serve the checkpoint in `directory` until the context ends; see `ServingEngine.serve`.

    Args:
        engine: what serves it.
        directory: folder of the checkpoint.
        records: where a server's log and load reports are kept.
        gpus: the GPUs that a server may use.
        ahead: what was begun for it; it serves once.
    """
    begun, server = time.monotonic(), ahead or engine_named(engine.name)
    with server.serve(engine, directory, records=records, gpus=gpus) as served:
        load_s = time.monotonic() - begun + (ahead.head_start_s if ahead else 0.0)
        stored = stored_weights(read_source(directory))
        deployment = dataclasses.replace(served.deployment, stored=stored, load_s=load_s)
        if isinstance(served, Endpoint):
            yield dataclasses.replace(served, deployment=deployment)
        else:
            yield served._replace(deployment=deployment)


def begun_ahead(
    engine: EngineSpec,
    num_bytes: Callable[[], int],
    *,
    records: Path,
    gpus: tuple[int, ...] | None,
) -> AbstractContextManager[Ahead | None]:
    """Begin what a server needs no checkpoint for; what is not used is gone when the context ends.

    Args:
        engine: what will serve; None is given for one that has nothing to begin.
        num_bytes: says how much the checkpoint's tensors will hold, where that matters.
        records: where a server's log and load reports will be kept.
        gpus: the GPUs that it may use.
    """
    if engine.name != "vllm":
        return nullcontext()
    ahead: AbstractContextManager[Ahead] = import_module(ENGINES["vllm"]).begun_ahead(
        engine, num_bytes, records=records, gpus=gpus
    )
    return ahead


def resolve_engine(engine: EngineSpec) -> EngineSpec:
    """Return `engine` with what this machine decides filled in; see `ServingEngine.resolve`."""
    return engine_named(engine.name).resolve(engine)


def check_served(engine: EngineSpec, demands: Demands) -> None:
    """Refuse a checkpoint that the engine cannot load; see `ServingEngine.check_serves`."""
    engine_named(engine.name).check_serves(engine, demands)


def foretell_served(engine: EngineSpec, demands: Demands) -> tuple[Foretold, ...]:
    """Return what becomes of a checkpoint's layers; see `ServingEngine.foretell`."""
    return engine_named(engine.name).foretell(engine, demands)


def has_emulation(engine: EngineSpec, demands: Demands) -> bool:
    """Return whether declared numerics are emulated; see `ServingEngine.has_emulation`."""
    return engine_named(engine.name).has_emulation(engine, demands)


def can_emulate(engine: EngineSpec) -> bool:
    """Return whether an engine has any emulation of what its kernels do not compute."""
    return engine.name not in _EMULATES_NOTHING


def reads_prompts(engine: EngineSpec) -> bool:
    """Return whether log-likelihoods of given texts can be asked of an engine."""
    return engine.name not in _GENERATES_ALONE


def serve_command(engine: EngineSpec, directory: Path) -> tuple[str, ...]:
    """Return the line that a user types to deploy `directory` as it was exercised.

    Where the engine is no longer there, it is the plain line for any vLLM.
    """
    try:
        return engine_named(engine.name).command(engine, directory)
    except HarnessError:
        return engine_named("reference").command(engine, directory)
