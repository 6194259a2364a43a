"""Lines of vLLM's log that tell of a damaged deployment while every health check is green.

vLLM says these once, as a warning or less, and serves on. Each is here with the failure that it
was a sign of, and with what it means: an error where the arithmetic is certainly not that of the
checkpoint, a warning where it may be harmless.

Source of the texts: vLLM 0.25.0 and 0.32.0; model_executor/layers/quantization/modelopt.py,
kv_cache.py, compressed_tensors/, utils/fp8_utils.py; fused_moe/oracle/nvfp4.py;
kernels/linear/nvfp4/marlin.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.artifacts import Finding, Severity
from harness.errors import ReasonCode

_PREFIX = re.compile(r"^(\(\S+ ?(pid=\d+)?\)\s*)*(\w+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*)?")
"""`(EngineCore pid=7) WARNING 11-23 01:00:00 [modelopt.py:1029] `."""
_MAX_LINE = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPattern:
    """One kind of line, and what it means."""

    id: str
    pattern: re.Pattern[str]
    severity: Severity
    reason: ReasonCode
    message: str
    incident: str
    only_kv_calibrated: bool = False
    """Whether it means something only for files that hold scales of keys and values."""
    only_rounded_inputs: bool = False
    """Whether it means something only for files that declare rounded inputs."""


PATTERNS: tuple[LogPattern, ...] = (
    LogPattern(
        id="gate-up-scale-mismatch",
        pattern=re.compile(r"w1_weight_(scale_2|global_scale) must match w3_weight_"),
        severity=Severity.ERROR,
        reason=ReasonCode.SCALE_MISMATCH,
        message="gate and up of an expert have global scales that differ; vLLM uses the gate's "
        "for both",
        incident="experts that calibration had not seen looped '1\\n1\\n1\\n' (Model-Optimizer "
        "issue 1411); measured: accuracy falls from 1.00 to 0.21",
    ),
    LogPattern(
        id="fused-scale-mismatch",
        pattern=re.compile(
            r"In (W4A16_)?NVFP4 linear, the (global (weight )?scale|weight global scale|input "
            r"global scale)( for input or weight)?( \(weight_scale_2\))? (is|are|differs)"
        ),
        severity=Severity.ERROR,
        reason=ReasonCode.SCALE_MISMATCH,
        message="layers that vLLM runs as one, such as q, k and v, have scales that differ; "
        "vLLM uses the largest for all",
        incident="codes of one layer are read with the scale of another",
    ),
    LogPattern(
        id="default-kv-scale",
        pattern=re.compile(
            r"Using KV cache scaling factor 1\.0 for fp8|may cause accuracy issues\. Please make "
            r"sure k/v_scale"
        ),
        severity=Severity.ERROR,
        reason=ReasonCode.LOAD_MISMATCH,
        message="the files hold calibrated scales of keys and values, and vLLM uses 1.0",
        incident="Qwen3.5's k and v scales were dropped by vLLM up to 0.27.1",
        only_kv_calibrated=True,
    ),
    LogPattern(
        id="weights-not-loaded",
        pattern=re.compile(
            r"weights were not initialized from checkpoint|(has|have|was|were) (not|never) been "
            r"loaded|was never loaded|uninitialized (weight|param|scale)"
        ),
        severity=Severity.ERROR,
        reason=ReasonCode.LOAD_MISMATCH,
        message="parameters were left as they were in memory",
        incident="a scale written to one of several shards only, the rest uninitialized: garbage "
        "that changes from run to run (vLLM issues 38197, 39764)",
    ),
    LogPattern(
        id="parameter-skipped",
        pattern=re.compile(
            r"not found in params_dict|[Ss]kip(ping)? loading (of )?(weight|param|tensor)"
        ),
        severity=Severity.ERROR,
        reason=ReasonCode.LOAD_MISMATCH,
        message="a tensor of the files has no place in vLLM's model and was skipped",
        incident="input scales dropped by a name map that knew only weights: every token was 0 "
        "(vLLM issue 37462)",
    ),
    LogPattern(
        id="expert-input-scales-differ",
        pattern=re.compile(
            r"activation global scale for inputs are different"
            r"|Found input_scales that are not equal for"
        ),
        severity=Severity.WARNING,
        reason=ReasonCode.SCALE_MISMATCH,
        message="experts of a layer have input scales that differ; vLLM uses the largest for all",
        incident="the only line in which vLLM showed that every expert input scale had been "
        "deleted: they held what was in memory",
        only_rounded_inputs=True,
    ),
    LogPattern(
        id="inputs-not-rounded",
        pattern=re.compile(r"Weight-only FP[48] compression\s+will"),
        severity=Severity.WARNING,
        reason=ReasonCode.NUMERICS_NOT_EXERCISED,
        message="this GPU has no kernel for the format; vLLM computes with unrounded inputs",
        incident="a checkpoint with every expert input scale deleted scored 100 % on such a kernel",
        only_rounded_inputs=True,
    ),
    LogPattern(
        id="emulation-fallback",
        pattern=re.compile(r"falling back to the slow and unoptimized\s+emulation"),
        severity=Severity.WARNING,
        reason=ReasonCode.NUMERICS_NOT_EXERCISED,
        message="vLLM found no kernel for the format and emulates it, which is slow",
        incident="a deployment that answers tens of times slower than planned",
    ),
)


def find_patterns(
    log: str,
    patterns: tuple[LogPattern, ...] = PATTERNS,
    *,
    kv_calibrated: bool,
    rounded_inputs: bool = True,
) -> Iterator[Finding]:
    """Yield a finding for each kind of line that the log holds.

    Args:
        log: the engine's log, or the part of it until the server was ready.
        patterns: the kinds of line of this engine.
        kv_calibrated: whether the files hold or promise scales of keys and values.
        rounded_inputs: whether the files declare inputs in a quantized format.
    """
    for known in patterns:
        if known.only_kv_calibrated and not kv_calibrated:
            continue
        if known.only_rounded_inputs and not rounded_inputs:
            continue
        lines = (line for line in log.splitlines() if known.pattern.search(line))
        examples = tuple(dict.fromkeys(_PREFIX.sub("", line)[:_MAX_LINE] for line in lines))
        if examples:
            yield Finding(
                id=known.id,
                severity=known.severity,
                message=known.message,
                reason=known.reason,
                incident=known.incident,
                examples=examples[:3],
            )
