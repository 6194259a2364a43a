"""The `vllm` engine among the others."""

from contextlib import AbstractContextManager
from pathlib import Path

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import (
    Capability,
    Demands,
    Foretold,
    capability_of,
    foretell_all,
    refuse_unsupported,
)
from harness.serve.vllm.server import check_vllm, serve_vllm, vllm_capability, vllm_command


class VllmEngine:
    """A vLLM process in an environment of its own."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine` with the place and version of the vLLM that was found."""
        return check_vllm(engine)

    def check_serves(self, engine: EngineSpec, demands: Demands) -> None:
        """Refuse what its version does not load."""
        refuse_unsupported(self.capability(engine), demands)

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

    def foretell(self, engine: EngineSpec, demands: Demands) -> tuple[Foretold, ...]:
        """Return what its own code says of the GPU here; a CPU build has the plugin's kernels."""
        if engine.device == "cpu" or not (engine.place or engine.image):
            return ()  # one that was not resolved is nowhere to be asked
        return foretell_all(self.capability(engine).abilities.foretold or {}, demands)

    def has_emulation(self, engine: EngineSpec, demands: Demands) -> bool:
        """Return whether its flags differ between declared and deployed numerics."""
        capability = capability_of(engine.version or "", engine.device)
        if not capability.tested:
            capability = self.capability(engine)
        declared, deployed = (capability.emulation(demands, declared=one) for one in (True, False))
        return declared != deployed

    def capability(self, engine: EngineSpec) -> Capability:
        """Return what its version does on its platform."""
        return vllm_capability(engine)

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return vLLM's line with the flags that were used."""
        return vllm_command(engine, directory)


ENGINE = VllmEngine()
