"""What the rest of harness is told of a vLLM server, a process or a container."""

from dataclasses import dataclass, field
from pathlib import Path

from harness.artifacts import Deployment, Endpoint, Finding, Severity
from harness.engines import Capability
from harness.errors import ReasonCode
from harness.processes import ProcessMark
from harness.serve.vllm.arguments import SERVED_NAME, Setting
from harness.serve.vllm.observe import Observed


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """Where a server runs, and on what."""

    base_url: str
    version: str
    device: str
    log: Path
    max_model_len: int
    arguments: tuple[str, ...]
    """As `recorded_arguments` gives them."""
    key: str = field(repr=False)
    """API key that the server wants."""
    process: ProcessMark | None = None
    """The server's, where it can be seen from here."""


def endpoint_of(setting: Setting, observed: Observed, place: ServerFacts) -> Endpoint:
    """Return the endpoint with its deployment; a container's is made the same way."""
    deployment = Deployment(
        engine=setting.engine.name,
        version=place.version,
        model=str(setting.source.path),
        checkpoint_digest=setting.source.digest,
        device=place.device,
        dtype=observed.dtype,
        arguments=place.arguments,
        kernels=observed.kernels,
        exercised=observed.exercised,
        declared=setting.demands.declared,
        log=str(place.log),
        tensor_parallel_size=setting.engine.tensor_parallel_size,
        loaded=observed.loaded,
        findings=(*observed.findings, *_untested(setting.capability)),
        not_observed=observed.not_observed,
        weights_memory_bytes=observed.weights_memory_bytes,
    )
    return Endpoint(
        base_url=place.base_url,
        model=SERVED_NAME,
        tokenizer=str(setting.source.path),
        max_model_len=place.max_model_len,
        num_concurrent=setting.capability.num_concurrent,
        deployment=deployment,
        api_key=place.key,
        process=place.process,
        dialect="vllm",
    )


def _untested(capability: Capability) -> tuple[Finding, ...]:
    """Return what is said of a version that is not in the record: nothing against it."""
    if capability.tested:
        return ()
    return (
        Finding(
            id="engine-untested",
            severity=Severity.WARNING,
            message=f"harness was not tested with {capability.name}; what it can do was asked of "
            "it, and what it does was observed",
            reason=ReasonCode.ENGINE_UNTESTED,
            incident="flags, kernels and loaders change between releases",
        ),
    )
