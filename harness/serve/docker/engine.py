"""The `docker` engine among the others: the same vLLM, in a container."""

from contextlib import AbstractContextManager
from pathlib import Path

from harness.artifacts import Endpoint, EngineSpec
from harness.engines import Capability
from harness.serve.docker.server import check_docker, docker_capability, serve_docker
from harness.serve.vllm.engine import VllmEngine


class DockerEngine(VllmEngine):
    """A vLLM in a container."""

    def resolve(self, engine: EngineSpec) -> EngineSpec:
        """Return `engine` with the id of its image and the version of the vLLM in it."""
        return check_docker(engine)

    def capability(self, engine: EngineSpec) -> Capability:
        """Return what the version in the image does on its platform."""
        return docker_capability(engine)

    def serve(
        self,
        engine: EngineSpec,
        directory: Path,
        *,
        records: Path | None,
        gpus: tuple[int, ...] | None,
    ) -> AbstractContextManager[Endpoint]:
        """Start the container, and wait until its server answers."""
        return serve_docker(engine, directory, records=records, gpus=gpus)

    def command(self, engine: EngineSpec, directory: Path) -> tuple[str, ...]:
        """Return the plain line: which container a user has is theirs to say."""
        del engine
        return ("vllm", "serve", str(directory))


ENGINE = DockerEngine()
