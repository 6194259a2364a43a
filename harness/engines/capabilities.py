"""What each known vLLM loads and computes, as data: the one place to touch for a new version.

Versions that are not here are refused by name. The plugin wraps private functions of the versions
that it names, kernels change names, and a flag that gave W4A4 arithmetic in one release may be
refused in the next: believing an unknown version would be guessing.

Emulation is asked for where the run wants the declared arithmetic and the platform's own kernels
hide a part of it (Marlin computes with rounded weights and unrounded inputs). vLLM refuses
`--moe-backend emulation` where the experts are not NVFP4, so it is given only where they are; FP8
is computed as declared by the ordinary kernels; an unquantized model gets no flag at all.

Source: vLLM 0.25.0 and 0.32.0, model_executor/kernels/linear/__init__.py,
model_executor/layers/fused_moe/oracle/{nvfp4,fp8}.py; measured on a H200 and on CPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.engines.algorithms import ALGORITHMS, COMPRESSED, MODELOPT
from harness.engines.demands import Demands
from harness.errors import PrerequisiteError, ReasonCode

SETUP = "scripts/setup-vllm cpu|cuda"
"""What installs a version that is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schemes:
    """Names of schemes that load, of one layout; the unquantized one always does."""

    everywhere: frozenset[str]
    dense_only: frozenset[str] = frozenset()
    """Not for routed experts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """What one version of vLLM does on one platform."""

    version: str
    platform: str
    schemes: Mapping[str, Schemes]
    """By layout."""
    kv: frozenset[str]
    """Formats of keys and values that it stores, besides the model's own."""
    num_concurrent: int
    """Requests that keep it busy."""
    always_emulated: bool
    """Whether NVFP4 has no kernel but the emulation."""
    arguments: tuple[str, ...]
    """What every server of this platform is started with."""

    def emulation(self, demands: Demands, *, declared: bool) -> tuple[str, ...]:
        """Return the flags that make the kernels compute what `demands` declare."""
        flags: list[str] = []
        if any(self._is_emulated(one, declared=declared) for one in demands.experts):
            flags += ["--moe-backend", "emulation"]
        # On CPU the plugin leaves one linear kernel to choose from; no flag is needed.
        if not self.always_emulated and any(
            self._is_emulated(one, declared=declared) for one in demands.linears
        ):
            flags += ["--linear-backend", "emulation"]
        return tuple(flags)

    def _is_emulated(self, algorithm: str, *, declared: bool) -> bool:
        parts = ALGORITHMS[algorithm]
        if parts.weights != "nvfp4":
            return False
        return self.always_emulated or (declared and parts.inputs is not None)


_OURS = frozenset({"NVFP4", "W4A16_NVFP4", "FP8"})
CAPABILITIES: tuple[Capability, ...] = (
    Capability(
        version="0.25.0",
        platform="cuda",
        schemes={
            MODELOPT: Schemes(
                everywhere=_OURS, dense_only=frozenset({"FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO"})
            ),
            COMPRESSED: Schemes(
                everywhere=_OURS
                | {
                    "FP8_PER_BLOCK",
                    "FP8_PER_CHANNEL_PER_TENSOR",
                    "FP8_PER_CHANNEL_PER_TOKEN",
                    "FP8_PER_TENSOR_DYNAMIC",
                },
                dense_only=frozenset({"W8A16_FP8", "W8A16_FP8_PER_CHANNEL"}),
            ),
        },
        kv=frozenset({"fp8"}),
        num_concurrent=64,
        always_emulated=False,
        arguments=(),
    ),
    Capability(
        version="0.32.0",
        platform="cpu",
        schemes={
            MODELOPT: Schemes(everywhere=_OURS),
            COMPRESSED: Schemes(
                everywhere=_OURS,
                dense_only=frozenset({"FP8_PER_CHANNEL_PER_TOKEN", "FP8_PER_TENSOR_DYNAMIC"}),
            ),
        },
        kv=frozenset({"fp8"}),
        num_concurrent=8,
        always_emulated=True,
        arguments=("--enforce-eager",),
    ),
)


def capability_of(version: str, platform: str) -> Capability:
    """Return what this version does on this platform.

    Raises:
        PrerequisiteError: it is not a known one.
    """
    for capability in CAPABILITIES:
        if (capability.version, capability.platform) == (version, platform):
            return capability
    known = ", ".join(f"{c.version} ({c.platform})" for c in CAPABILITIES)
    message = (
        f"vLLM {version} ({platform}) is not a version that harness knows. Known: {known}. "
        f"Install one of them with {SETUP}, or name its environment with --vllm PATH."
    )
    raise PrerequisiteError(message)


def refuse_unsupported(capability: Capability, demands: Demands) -> None:
    """Refuse what this vLLM cannot load, before anything is calibrated.

    Raises:
        PrerequisiteError: with the scheme and the reason `unsupported-format`.
    """
    where = f"vLLM {capability.version} ({capability.platform})"
    loads = capability.schemes.get(demands.layout, Schemes(everywhere=frozenset()))
    problem = None
    if odd := demands.algorithms - (loads.everywhere | loads.dense_only):
        known = ", ".join(sorted(loads.everywhere | loads.dense_only)) or "none"
        problem = (
            f"{where} is not known to load scheme '{min(odd)}' of {demands.layout}. "
            f"Of that layout it loads: {known}."
        )
    elif dense := demands.experts & loads.dense_only:
        problem = (
            f"{where} loads scheme '{min(dense)}' of {demands.layout} for dense layers, not "
            "for routed experts. Quantize them otherwise, or not."
        )
    elif demands.kv is not None and demands.kv not in capability.kv:
        problem = (
            f"{where} is not known to keep keys and values in {demands.kv.upper()}. 'harness "
            "quantize --kv-cache-qformat none' makes a checkpoint without."
        )
    if problem is not None:
        raise PrerequisiteError(problem, reason=ReasonCode.UNSUPPORTED_FORMAT)
