"""What calibration measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.artifacts.recipe import CoverageSpec

_MAX_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertCoverage:
    """How often the experts of one layer were seen; one number an expert."""

    experts: str
    """Module path of the layer's experts."""
    projection: str
    """`gate_up_proj` or `down_proj`."""
    calls: tuple[int, ...]
    """Linear calls of each expert that were observed."""
    tokens: tuple[int, ...]
    """Tokens that reached each expert, over all samples."""

    @property
    def num_observed(self) -> int:
        """Number of experts that at least one token reached."""
        return sum(count > 0 for count in self.tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationStats:
    """Largest absolute values and expert coverage."""

    weight_amax: Mapping[str, float]
    """By Linear.name, before groups are merged."""
    input_amax: Mapping[str, float]
    """By quantizer name: inputs of linear layers, and keys and values where they are calibrated."""
    coverage: tuple[ExpertCoverage, ...]
    num_samples: int
    num_tokens: int
    """Tokens that were run; no position is padding."""
    batch_tokens: int = 0
    """Tokens of a batch at most, as it was run: half of what was asked for where memory ran out, or
    a quarter, and so on. 0 where no text was run."""
    folded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By tensor of the source that is not quantized and is multiplied with powers of two along its
    last dimension: their exponents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinExperts:
    """Projections of routed experts that calibration saw too little of."""

    wanted: CoverageSpec
    num_thin: int
    num_projections: int
    """Of all experts of all layers, each projection counted."""
    fewest: int
    """Tokens of the projection that saw the fewest."""
    examples: tuple[str, ...]
    """At most five, the thinnest first, such as `model.layers.3.mlp.experts.17.down_proj`."""

    @property
    def share(self) -> float:
        """Fraction of all projections."""
        return self.num_thin / self.num_projections

    @property
    def too_many(self) -> bool:
        """Whether the coverage that was asked for is missed."""
        return self.share > self.wanted.max_thin

    def __str__(self) -> str:
        """Return it as a clause with numbers."""
        few = self.wanted.min_tokens
        fewer = "saw no token" if few == 1 else f"saw fewer than {few} tokens"
        first = f" (first: {self.examples[0]})" if self.examples else ""
        return (
            f"{self.num_thin} of {self.num_projections} projections of experts {fewer} in the "
            f"calibration, {self.share:.1%} where {self.wanted.max_thin:.1%} is allowed{first}"
        )


def thin_experts(coverage: Sequence[ExpertCoverage], wanted: CoverageSpec) -> ThinExperts | None:
    """Return which experts saw too few tokens; None where no text was run through any expert."""
    counts = sorted(
        (tokens, f"{layer.experts}.{number}.{layer.projection}")
        for layer in coverage
        for number, tokens in enumerate(layer.tokens)
    )
    if not counts:
        return None
    thin = [name for tokens, name in counts if tokens < wanted.min_tokens]
    return ThinExperts(
        wanted=wanted,
        num_thin=len(thin),
        num_projections=len(counts),
        fewest=counts[0][0],
        examples=tuple(thin[:_MAX_EXAMPLES]),
    )
