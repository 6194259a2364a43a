"""The `reference` engine among the others: what it heeds, needs and can load."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch

from harness.artifacts import EngineSpec
from harness.engines import MODELOPT, Demands, Foretold
from harness.errors import PrerequisiteError, ReasonCode, RecipeError, UsageError
from harness.formats import get_scheme
from harness.serve.reference import Served, serve_reference

_DTYPES = ("float32", "bfloat16", "float16")


class InProcessEngine:
    """It answers in this process and has no server."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine`, checked: nothing about it is for the machine to decide."""
        _refuse_ignored(engine)
        _refuse_absent(engine)
        return engine

    def check_serves(self, engine: EngineSpec, demands: Demands) -> None:
        """Refuse a layout or an algorithm that it does not compute."""
        del engine
        _refuse_unread(demands)

    def serve(
        self,
        engine: EngineSpec,
        directory: Path,
        *,
        records: Path | None,
        gpus: tuple[int, ...] | None,
    ) -> AbstractContextManager[Served]:
        """Load the checkpoint; there are no records of a server."""
        del records, gpus
        return serve_reference(self.resolve(engine), directory)

    def foretell(self, engine: EngineSpec, demands: Demands) -> tuple[Foretold, ...]:
        """Return nothing: it computes what is declared, or refuses it."""
        del engine, demands
        return ()

    def has_emulation(self, engine: EngineSpec, demands: Demands) -> bool:
        """Return False: it computes what is declared and nothing else."""
        del engine, demands
        return False

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return the plain line of a vLLM, which is what deploys it."""
        del engine
        return ("vllm", "serve", str(directory))


ENGINE = InProcessEngine()


def _refuse_ignored(engine: EngineSpec) -> None:
    """Refuse what is for a server.

    Raises:
        UsageError: with the option.
    """
    given = {
        f"--engine-arg {engine.arguments[0]}" if engine.arguments else "": engine.arguments,
        f"--tensor-parallel-size {engine.tensor_parallel_size}": engine.tensor_parallel_size > 1,
        f"--vllm {engine.place}": engine.place,
        f"--image {engine.image}": engine.image,
    }
    for option, is_given in given.items():
        if is_given:
            message = (
                f"{option} is for a server, and the reference engine is none. Leave it out, or "
                "type --engine vllm or --engine docker."
            )
            raise UsageError(message)


def _refuse_unread(demands: Demands) -> None:
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


def _refuse_absent(engine: EngineSpec) -> None:
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
