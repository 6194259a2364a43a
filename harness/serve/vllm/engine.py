"""The `vllm` engine among the others."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from harness.serve.vllm.server import (
    Site,
    check_vllm,
    serve_vllm,
    vllm_capability,
    vllm_command,
    waiting_vllm,
)
from harness.serve.vllm.waiting import WaitingServer


class VllmEngine:
    """A vLLM process in an environment of its own."""

    def __init__(self, waiting: WaitingServer | None = None) -> None:
        """Serve from a process that waits, once, where it is what is wanted by then."""
        self._waiting = waiting

    @property
    def head_start_s(self) -> float:
        """Return how many seconds of a start that process has spared; 0 unless it serves."""
        return self._waiting.head_start_s if self._waiting else 0.0

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
        site = Site(records, gpus, waiting=self._waiting)
        return serve_vllm(check_vllm(engine), directory, site)

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


@contextmanager
def begun_ahead(
    engine: EngineSpec,
    num_bytes: Callable[[], int],
    *,
    records: Path,
    gpus: tuple[int, ...] | None,
) -> Iterator[VllmEngine]:
    """Begin a process that waits; see `harness.serve.begun_ahead`."""
    with waiting_vllm(check_vllm(engine), num_bytes, Site(records, gpus)) as waiting:
        yield VllmEngine(waiting)


ENGINE = VllmEngine()
