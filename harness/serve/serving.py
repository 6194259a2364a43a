"""What an engine has to offer to be one: where it is, what it loads, and a server of it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Demands, Foretold
from harness.serve.reference import Served


class Serving(Protocol):
    """What a checkpoint is served with."""

    def serve(
        self,
        engine: EngineSpec,
        directory: Path,
        *,
        records: Path | None,
        gpus: tuple[int, ...] | None,
    ) -> AbstractContextManager[Served | Endpoint]:
        """Serve the checkpoint in `directory`, quantized or not, until the context ends.

        Args:
            engine: as `resolve` returned it, or as typed.
            directory: folder of the checkpoint.
            records: where a server's log and load reports are kept.
            gpus: the GPUs that a server may use; None leaves it to the environment.

        Raises:
            PrerequisiteError: this machine cannot run the engine.
            ModelError: the folder is no checkpoint.
            EngineError: the engine cannot load it; a missing scale is never replaced by a default.
        """


class Ahead(Serving, Protocol):
    """What was begun of a server before its checkpoint was there; it serves sooner, once."""

    @property
    def head_start_s(self) -> float:
        """Return how many seconds of a server's start it has spared; 0 unless it serves."""


class ServingEngine(Serving, Protocol):
    """One engine; its module has it as `ENGINE`."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine` with what this machine decides filled in: its place and version.

        Raises:
            PrerequisiteError: this version or this machine cannot run it, with what to do.
            UsageError: an option is not for this engine, or not for the user to decide.
        """

    def check_serves(self, engine: EngineSpec, demands: Demands) -> None:
        """Refuse a checkpoint that the engine cannot load, before anything is calibrated.

        Raises:
            PrerequisiteError: with the reason `unsupported-format`.
        """

    def foretell(self, engine: EngineSpec, demands: Demands) -> tuple[Foretold, ...]:
        """Return what becomes of the layers of a checkpoint, as far as it can be known before."""

    def has_emulation(self, engine: EngineSpec, demands: Demands) -> bool:
        """Return whether declared numerics are emulated, where deployed ones have kernels."""

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return the line that a user types to deploy `directory` as it was exercised.

        Raises:
            HarnessError: the engine is no longer there.
        """
