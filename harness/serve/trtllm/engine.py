"""The `trtllm` engine among the others."""

import dataclasses
import logging
from contextlib import AbstractContextManager
from pathlib import Path

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Demands, doubts_of_trtllm, refuse_unread_by_trtllm
from harness.errors import PrerequisiteError, UsageError
from harness.serve.trtllm.environment import ask_trtllm
from harness.serve.trtllm.server import flags_of, serve_trtllm, trtllm_command

_log = logging.getLogger("harness.serve")


class TrtllmEngine:
    """A `trtllm-serve` process in an environment of its own."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine` with the place and version of the TensorRT-LLM that was found."""
        if engine.image:
            message = f"--image {engine.image} is for --engine docker. Leave it out."
            raise UsageError(message)
        flags_of(engine)
        environment = ask_trtllm(engine.place)
        num_gpus, needed = len(environment.gpus), engine.tensor_parallel_size
        if num_gpus < needed:
            message = (
                f"TensorRT-LLM {environment.version} in '{environment.python}' needs {needed} "
                f"GPU(s), the driver shows {num_gpus}. Use a machine that has them."
            )
            raise PrerequisiteError(message)
        return dataclasses.replace(
            engine, place=environment.python, version=environment.version, device="cuda"
        )

    def check_serves(self, engine: EngineSpec, demands: Demands) -> None:
        """Refuse what its version has no name for; say what its documentation does not list."""
        environment = ask_trtllm(engine.place)
        refuse_unread_by_trtllm(demands, environment.algorithms)
        for doubt in doubts_of_trtllm(demands, environment.generation):
            _log.warning("serve: TensorRT-LLM %s: %s", environment.version, doubt)

    def serve(
        self,
        engine: EngineSpec,
        directory: Path,
        *,
        records: Path | None,
        gpus: tuple[int, ...] | None,
    ) -> AbstractContextManager[Endpoint]:
        """Start it, and wait until it answers."""
        return serve_trtllm(self.resolve(engine), directory, records=records, gpus=gpus)

    def has_emulation(self, engine: EngineSpec, demands: Demands) -> bool:
        """Return False: it computes what its kernels do and nothing else."""
        del engine, demands
        return False

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return its line with the flags that were used."""
        return trtllm_command(engine, directory)


ENGINE = TrtllmEngine()
