"""The `vllm` engine among the others."""

from contextlib import AbstractContextManager
from pathlib import Path

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Demands, capability_of
from harness.serve.vllm.server import check_vllm, check_vllm_serves, serve_vllm, vllm_command


class VllmEngine:
    """A vLLM process in an environment of its own."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine` with the place and version of the vLLM that was found."""
        return check_vllm(engine)

    def check_serves(self, engine: EngineSpec, demands: Demands) -> None:
        """Refuse what its version does not load."""
        check_vllm_serves(engine, demands)

    def serve(
        self,
        engine: EngineSpec,
        directory: Path,
        *,
        records: Path | None,
        gpus: tuple[int, ...] | None,
    ) -> AbstractContextManager[Endpoint]:
        """Start it, and wait until it answers."""
        return serve_vllm(check_vllm(engine), directory, records=records, gpus=gpus)

    def has_emulation(self, engine: EngineSpec, demands: Demands) -> bool:
        """Return whether its flags differ between declared and deployed numerics."""
        capability = capability_of(engine.version or "", engine.device)
        declared, deployed = (capability.emulation(demands, declared=one) for one in (True, False))
        return declared != deployed

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return vLLM's line with the flags that were used."""
        return vllm_command(engine, directory)


ENGINE = VllmEngine()
