"""Look at a checkpoint's files and say what is wrong with them, before an accelerator is used.

Nearly every gibberish incident on record is a fault of scales that the files already show: a
missing input scale, a gate and an up projection with different global scales, an ignore list that
names the wrong modules. Engines load such checkpoints without a word. So every check is run on
every checkpoint, whoever made it, and each answers with its own id.

Left out: what only a source model can tell (`--source`), and whether an engine version loads it.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from harness.artifacts import Check, IntegrityReport
from harness.errors import ReasonCode, RejectedError
from harness.verify import (
    checks_config,
    checks_files,
    checks_kv,
    checks_layout,
    checks_scales,
)
from harness.verify.contents import Contents, read_contents
from harness.verify.modules import kind_of

_log = logging.getLogger("harness.verify")

CHECKS: tuple[Callable[[Contents], Check], ...] = (
    checks_files.shards_complete,
    checks_config.quantization_declared,
    checks_config.something_quantized,
    checks_layout.expert_input_scales_complete,
    checks_layout.experts_complete,
    checks_layout.tensors_present,
    checks_layout.tensors_well_formed,
    checks_layout.fused_groups_uniform,
    checks_scales.scales_finite,
    checks_scales.scales_positive,
    checks_scales.scales_normal,
    checks_scales.expert_global_scales_equal,
    checks_scales.fused_global_scales_equal,
    checks_scales.fused_input_scales_equal,
    checks_scales.input_scales_plausible,
    checks_scales.weights_finite,
    checks_kv.kv_scales_consistent,
    checks_config.quantized_not_ignored,
    checks_config.unquantized_ignored,
    checks_config.routers_and_vision_plain,
    checks_config.patterns_used,
    checks_config.declarations_agree,
    checks_files.index_matches_shards,
    checks_files.manifest_matches_files,
)
"""In the order of the report; of several that fail, the first says most about the cause."""


def verify(directory: Path) -> IntegrityReport:
    """Run every check on the checkpoint in `directory`.

    Raises:
        ModelError: the folder holds no checkpoint at all.
    """
    contents = read_contents(directory)
    report = IntegrityReport(
        checkpoint=str(directory),
        checks=tuple(check(contents) for check in CHECKS),
        input_scales=_input_scale_ranges(contents),
    )
    failed = sum(not check.passed for check in report.checks)
    _log.info("verify: %d checks, %d failed", len(report.checks), failed)
    return report


def refuse_errors(report: IntegrityReport) -> None:
    """Refuse a checkpoint that must not be served.

    Raises:
        RejectedError: a check failed, with the first one's finding.
    """
    if not report.errors:
        return
    first, *others = report.errors
    also = f"; also {', '.join(check.id for check in others)}" if others else ""
    message = (
        f"{first.id}: {first.message}{also}. "
        f"'harness verify {report.checkpoint}' lists every finding; export the checkpoint again."
    )
    raise RejectedError(message, reason=ReasonCode.INTEGRITY_FAILED)


def _input_scale_ranges(contents: Contents) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest input scale by layer and kind."""
    ranges: dict[str, tuple[float, float]] = {}
    for name, value in checks_scales.input_scales(contents):
        kind = kind_of(name.rpartition(".")[0])
        if kind is not None:
            low, high = ranges.get(kind, (value, value))
            ranges[kind] = (min(low, value), max(high, value))
    return ranges
