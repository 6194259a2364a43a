"""What vLLM was seen to load and compute, by version and platform: a record, not a permission.

A version that is not here is the normal case, since there is a new one every few weeks. What it can
do then follows from what it says of itself (`Abilities`), and from what the nearest tested version
of its platform needs; what cannot be asked is observed when it has started.

Emulation is asked for where the run wants the declared arithmetic and the platform's own kernels
hide a part of it (Marlin computes with rounded weights and unrounded inputs). vLLM refuses
`--moe-backend emulation` where the experts are not NVFP4, so it is given only where they are; FP8
is computed as declared by the ordinary kernels; an unquantized model gets no flag at all.

Source: vLLM 0.25.0 and 0.32.0, model_executor/kernels/linear/__init__.py,
model_executor/layers/fused_moe/oracle/{nvfp4,fp8}.py; measured on a H200 and on CPU.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.engines.abilities import NOTHING_ASKED, Abilities
from harness.engines.algorithms import ALGORITHMS, COMPRESSED, MODELOPT
from harness.engines.demands import Demands
from harness.errors import PrerequisiteError

SETUP = "scripts/setup-vllm cpu|cuda"
"""What installs a version that was tested."""
OLDEST = (0, 25)
"""The first version whose loaders and kernels lie where they are looked for."""
_PLATFORMS = ("cpu", "cuda")
_RELEASE = re.compile(r"(\d+)\.(\d+)")
_UNNUMBERED = re.compile(r"0\.(0|1)(\.0)?\.?dev|dev")
"""A build from a checkout without tags: its number says nothing."""


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
    schemes: Mapping[str, Schemes] = field(default_factory=dict)
    """Seen to load, by layout."""
    kv: frozenset[str]
    """Formats of keys and values that it stores, besides the model's own."""
    num_concurrent: int
    """Requests that keep it busy."""
    always_emulated: bool
    """Whether NVFP4 has no kernel but the emulation."""
    arguments: tuple[str, ...]
    """What every server of this platform is started with."""
    tested: bool = True
    """Whether this version was served and seen; else all of this is derived."""
    abilities: Abilities = NOTHING_ASKED
    """What it says of itself."""

    @property
    def name(self) -> str:
        """Return how a message names it."""
        return f"vLLM {self.version} ({self.platform})"

    def emulation(self, demands: Demands, *, declared: bool) -> tuple[str, ...]:
        """Return the flags that make the kernels compute what `demands` declare."""
        flags: list[str] = []
        if any(self._is_emulated(one, declared=declared) for one in demands.experts):
            flags += self._backend("--moe-backend")
        # On CPU the plugin leaves one linear kernel to choose from; no flag is needed.
        if not self.always_emulated and any(
            self._is_emulated(one, declared=declared) for one in demands.linears
        ):
            flags += self._backend("--linear-backend")
        return tuple(flags)

    def _backend(self, flag: str) -> list[str]:
        return [] if self.abilities.takes(flag, "emulation") is False else [flag, "emulation"]

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
            MODELOPT: Schemes(
                everywhere=_OURS, dense_only=frozenset({"FP8_PER_CHANNEL_PER_TOKEN"})
            ),
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


def capability_of(version: str, platform: str, abilities: Abilities = NOTHING_ASKED) -> Capability:
    """Return what a version does on a platform: as it was seen, or as it says.

    Args:
        version: such as `0.32.0`, or of a nightly build `0.33.1.dev12+gabcdef012`.
        platform: `cpu` or `cuda`.
        abilities: what it says of itself, where it was asked.

    Raises:
        PrerequisiteError: it is older than what is understood, or for another platform.
    """
    _refuse_not_understood(version, platform)
    seen = next((c for c in CAPABILITIES if c.platform == platform and c.version == version), None)
    if seen is None:
        like = next(c for c in reversed(CAPABILITIES) if c.platform == platform)
        kv = like.kv if abilities.flags is None else _kv_formats(abilities, platform)
        seen = replace(like, version=version, schemes={}, kv=kv, tested=False)
    arguments = tuple(flag for flag in seen.arguments if abilities.takes(flag) is not False)
    return replace(seen, arguments=arguments, abilities=abilities)


def _refuse_not_understood(version: str, platform: str) -> None:
    if platform not in _PLATFORMS:
        message = (
            f"this vLLM {version} is built for {platform}; harness serves its builds for "
            f"{' and '.join(_PLATFORMS)}. Name another with --vllm PATH, or make one with {SETUP}."
        )
        raise PrerequisiteError(message)
    number = _RELEASE.match(version)
    if number is None or _UNNUMBERED.match(version):
        return
    if (int(number[1]), int(number[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        message = (
            f"vLLM {version} ({platform}) is older than {oldest}, the oldest that harness "
            f"understands. Name a newer one with --vllm PATH, or make one with {SETUP}."
        )
        raise PrerequisiteError(message)


def _kv_formats(abilities: Abilities, platform: str) -> frozenset[str]:
    """Return the formats of keys and values among the values of the flag that sets them.

    The flag takes the same values on every platform; 4 bits need a GPU's attention.
    """
    choices = (abilities.flags or {}).get("kv-cache-dtype", frozenset())
    formats = ("fp8",) if platform == "cpu" else ("fp8", "nvfp4")
    return frozenset(name for name in formats if not choices or name in choices)
