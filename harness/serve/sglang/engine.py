"""The `sglang` engine among the others."""

from contextlib import AbstractContextManager
from pathlib import Path

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Demands, Foretold, foretell_sglang
from harness.serve.sglang.environment import ask_answers, ask_sglang
from harness.serve.sglang.server import (
    check_demands,
    check_sglang,
    place_of,
    serve_sglang,
    sglang_command,
)


class SglangEngine:
    """An SGLang process in an environment of its own."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine` with the place and version of the SGLang that was found."""
        return check_sglang(engine)

    def check_serves(self, engine: EngineSpec, demands: Demands) -> None:
        """Refuse what its version does not compute as it is declared."""
        environment = ask_sglang(engine.place)
        check_demands(demands, environment, ask_answers(environment))

    def serve(
        self,
        engine: EngineSpec,
        directory: Path,
        *,
        records: Path | None,
        gpus: tuple[int, ...] | None,
    ) -> AbstractContextManager[Endpoint]:
        """Start it, and wait until it answers."""
        return serve_sglang(check_sglang(engine), directory, records=records, gpus=gpus)

    def has_emulation(self, engine: EngineSpec, demands: Demands) -> bool:
        """Return False: SGLang computes what its kernels do and emulates nothing."""
        del engine, demands
        return False

    def foretell(self, engine: EngineSpec, demands: Demands) -> tuple[Foretold, ...]:
        """Return what becomes of a checkpoint's layers, as the sources of its version say."""
        environment = ask_sglang(engine.place)
        return foretell_sglang(demands, place_of(environment, ask_answers(environment)))

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return SGLang's line with the flags that were used."""
        return sglang_command(engine, directory)


ENGINE = SglangEngine()
