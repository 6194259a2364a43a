"""What calibration measured."""

from collections.abc import Mapping
from dataclasses import dataclass


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
