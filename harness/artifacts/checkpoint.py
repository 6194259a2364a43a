"""What export wrote, and what verification found in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class QuantizedTensor(NamedTuple):
    """The tensors that replace one source tensor, or some alike; streamed, never all at once."""

    source: str
    """Name of the tensor in the source files, or of the first."""
    tensors: "Mapping[str, Tensor]"
    """Names and values in the checkpoint."""
    format: str
    """A name in harness.formats, or `none` for a tensor that is copied byte for byte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A folder in the unified Hugging Face layout."""

    directory: str
    scheme: str
    """`NVFP4`, `W4A16_NVFP4`, `FP8`."""
    kv_cache: str
    num_bytes: int
    """Of all weight files."""
    num_tensors: int
    num_quantized: int
    """Linear layers, each projection of each expert counted."""
    bits_per_weight: float
    """Stored bits, scales included, over the weights that were quantized."""
    sha256: Mapping[str, str]
    """Of each file, by name."""
    digest: str
    """sha256 over the files' names and contents."""


class Severity(StrEnum):
    """What a failed check means."""

    ERROR = "error"
    """The checkpoint must not be served."""
    WARNING = "warning"
    """Worth a look; the verdict is not touched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One question that was asked of the files, and the answer."""

    id: str
    """Stable, kebab-case, such as `expert-input-scales-complete`."""
    passed: bool
    severity: Severity
    message: str
    """What was found, with counts; one line."""
    num_faulty: int = 0
    examples: tuple[str, ...] = ()
    """At most five names."""
    incident: str = ""
    """Link to where this went wrong before; empty for checks that no incident asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredSize:
    """How large a checkpoint's files are, and what its formats promise."""

    num_bytes: int
    """Of all weight files in the folder, those that no index names included."""
    num_weights: int
    """That are quantized, or declared to be."""
    promised_bits: float
    """Of one of these weights, by its format, at the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntegrityReport:
    """Every check that was run on a checkpoint."""

    checkpoint: str
    checkpoint_digest: str
    """sha256 over the files that were looked at."""
    checks: tuple[Check, ...]
    input_scales: Mapping[str, tuple[float, float]]
    """Smallest and largest input scale by decoder layer and kind, such as `3.experts.down_proj`,
    for the report's plot."""
    size: DeclaredSize | None = None
    """None of reports by an older version."""

    @property
    def errors(self) -> tuple[Check, ...]:
        """Failed checks that forbid serving."""
        return tuple(c for c in self.checks if not c.passed and c.severity is Severity.ERROR)
