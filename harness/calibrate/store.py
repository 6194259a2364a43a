"""CalibrationStats on the disk: ranges as tensors, the rest as JSON.

`calibration.safetensors` holds one float64 scalar for each weight (`<layer>.weight_amax`) and
each quantizer of inputs, keys or values (`<quantizer>._amax`, as Model-Optimizer names them).
float64 keeps every source's range exactly. What is folded into tensors that are not quantized are
exponents, int8 (`<tensor>._folded`). `calibration.json` is written last: where it is, all
of it is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from harness import doors
from harness.artifacts import START_AGAIN, CalibrationStats, ExpertCoverage, MadeFrom, load, save
from harness.errors import ReasonCode, RunDirectoryError
from harness.models import sha256_of

_WEIGHT = ".weight_amax"
_INPUT = "._amax"
_FOLDED = "._folded"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Coverage:
    """What is no range."""

    num_samples: int
    num_tokens: int
    batch_tokens: int
    coverage: tuple[ExpertCoverage, ...]
    ranges_sha256: str
    """Of calibration.safetensors."""


def write_stats(stats: CalibrationStats, path: Path, made_from: MadeFrom) -> str:
    """Write `stats` to `path` (JSON) and to the safetensors file of the same name beside it.

    Returns:
        The digest of all of it.
    """
    amax = {f"{name}{_WEIGHT}": value for name, value in stats.weight_amax.items()}
    amax |= {f"{name}{_INPUT}": value for name, value in stats.input_amax.items()}
    ranges = path.with_suffix(".safetensors")
    # As numpy's, for a model with experts has 60,000 ranges, and torch's take seconds to write.
    tensors = {name: np.array(value, dtype=np.float64) for name, value in amax.items()}
    tensors |= {
        f"{name}{_FOLDED}": np.array(exponents, dtype=np.int8)
        for name, exponents in stats.folded.items()
    }
    partial = doors.partial_of(ranges)
    doors.remove(partial)  # of a process that was killed; a link itself, not its target
    save_file(tensors, partial)
    partial.replace(ranges)
    rest = _Coverage(
        num_samples=stats.num_samples,
        num_tokens=stats.num_tokens,
        batch_tokens=stats.batch_tokens,
        coverage=stats.coverage,
        ranges_sha256=sha256_of(ranges),
    )
    return save(rest, path, made_from=made_from)


def read_stats(path: Path) -> CalibrationStats:
    """Read what write_stats wrote.

    Raises:
        RunDirectoryError: one of the two files is missing, broken or was changed.
    """
    rest = load(_Coverage, path)
    ranges = path.with_suffix(".safetensors")
    if ranges.is_file() and sha256_of(ranges) != rest.ranges_sha256:
        message = (
            f"'{ranges}' was changed after harness wrote it. Put the file back as it was, or "
            f"{START_AGAIN}."
        )
        raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    try:
        stored = load_file(ranges)
        folded = {n: tuple(stored.pop(n).tolist()) for n in list(stored) if n.endswith(_FOLDED)}
        tensors = {name: float(value) for name, value in stored.items()}
    except (OSError, SafetensorError, ValueError) as error:
        message = f"'{ranges}' cannot be read: {error}. Remove it, or {START_AGAIN}."
        raise RunDirectoryError(message) from error
    return CalibrationStats(
        weight_amax={n.removesuffix(_WEIGHT): v for n, v in tensors.items() if n.endswith(_WEIGHT)},
        input_amax={n.removesuffix(_INPUT): v for n, v in tensors.items() if n.endswith(_INPUT)},
        coverage=rest.coverage,
        num_samples=rest.num_samples,
        num_tokens=rest.num_tokens,
        batch_tokens=rest.batch_tokens,
        folded={name.removesuffix(_FOLDED): exponents for name, exponents in folded.items()},
    )
