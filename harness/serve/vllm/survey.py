"""What `harness doctor --vllm PATH` says: a vLLM's own answers, and what follows from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.engines import CAPABILITIES, Abilities, Capability, capability_of
from harness.errors import PrerequisiteError
from harness.serve.vllm.answers import ask_abilities
from harness.serve.vllm.environment import VllmEnvironment, ask_vllm
from harness.serve.vllm.gaps import foretold

_FLAGS = (
    ("--moe-backend", "emulation"),
    ("--linear-backend", "emulation"),
    ("--gdn-prefill-backend", "triton"),
    ("--language-model-only", None),
    ("--enforce-eager", None),
    ("--load-format", "safetensors"),
    ("--tensor-parallel-size", None),
    ("--max-model-len", None),
)
"""What harness passes to a server, where the version takes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmSurvey:
    """One vLLM, as it is and as it says; None is what it could not say, with the reason."""

    python: str
    version: str
    platform: str
    torch: str
    device: str
    tested: bool
    tested_versions: tuple[str, ...]
    methods: tuple[str, ...] | None
    quant_algos: tuple[str, ...] | None
    schemes: tuple[str, ...] | None
    linear_kernels: Mapping[str, tuple[str, ...]] | None
    expert_backends: Mapping[str, tuple[str, ...]] | None
    flags: Mapping[str, bool | None]
    """Those that harness passes: whether the version takes them."""
    emulation: tuple[str, ...]
    """`experts`, `linear`: what it emulates when it is asked to."""
    num_architectures: int | None
    num_by_transformers: int | None
    loaders: Mapping[str, str] | None
    adapters: tuple[str, ...] | None
    missing: Mapping[str, str]
    unknown: Mapping[str, str]
    means: tuple[str, ...]
    """What follows for a run and its verdict, a sentence each."""


def survey_vllm(place: str | None) -> VllmSurvey:
    """Return what a vLLM says of itself; `place` is that of `find_vllm`.

    Raises:
        PrerequisiteError: there is none.
    """
    environment = ask_vllm(place)
    said = ask_abilities(environment).abilities
    refusal, capability = _capability(environment, said)
    flags = {" ".join(filter(None, one)): said.takes(*one) for one in _FLAGS}
    emulated = {"experts": "--moe-backend", "linear": "--linear-backend"}
    return VllmSurvey(
        python=environment.python,
        version=environment.version,
        platform=environment.platform,
        torch=environment.torch,
        device=environment.device,
        tested=capability is not None and capability.tested,
        tested_versions=tuple(f"{one.version} ({one.platform})" for one in CAPABILITIES),
        methods=_sorted(said.methods),
        quant_algos=_sorted(said.quant_algos),
        schemes=_sorted(said.schemes),
        linear_kernels=said.linear_kernels,
        expert_backends=said.expert_backends,
        flags=flags,
        emulation=tuple(p for p, flag in emulated.items() if said.takes(flag, "emulation")),
        num_architectures=_count(said.architectures),
        num_by_transformers=_count(said.by_transformers),
        loaders=said.loaders,
        adapters=_sorted(said.adapters),
        missing=said.missing,
        unknown=said.unknown,
        means=tuple(_meaning(environment, said, refusal, capability)),
    )


def _capability(
    environment: VllmEnvironment, said: Abilities
) -> tuple[str | None, Capability | None]:
    try:
        return None, capability_of(environment.version, environment.platform, said)
    except PrerequisiteError as error:
        return str(error), None


def _meaning(
    environment: VllmEnvironment,
    said: Abilities,
    refusal: str | None,
    capability: Capability | None,
) -> Iterator[str]:
    if refusal is not None:
        yield f"it is not served: {refusal}"
        return
    if environment.platform == "cuda" and not environment.gpus:
        yield "it is not served here: it is built for CUDA, and the driver shows no GPU"
    if lacking := sorted(said.mandatory & said.missing.keys()):
        yield f"it is not served: what keeps a server safe does not fit it ({', '.join(lacking)})"
    if capability is not None and not capability.tested:
        yield "its version was not tested: it is served by what it says, and the verdict says so"
    yield from _evidence(said)


def _evidence(said: Abilities) -> Iterator[str]:
    """Yield what the plugin will and will not see in it."""
    gaps = foretold(said)
    if said.adapters is None:
        yield "what of harness's plugin fits it is not known before it has started"
    elif gaps:
        yield from gaps
        yield "a run ends INCONCLUSIVE for that, or GO where it says missing_evidence: go"
    else:
        yield "what it loads and computes is seen: a verdict lacks no evidence"
    for adapter in sorted(said.missing):
        if adapter.startswith("cpu-"):
            yield f"without {adapter} it has vLLM's own kernels for that on CPU, or none"


def _sorted(names: frozenset[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(names))


def _count(names: frozenset[str] | None) -> int | None:
    return None if names is None else len(names)
