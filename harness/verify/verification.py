"""Look at a checkpoint's files and say what is wrong with them, before an accelerator is used.

Nearly every gibberish incident on record is a fault of scales that the files already show: a
missing input scale, a gate and an up projection with different global scales, an ignore list that
names the wrong modules. Engines load such checkpoints without a word. So every check is run on
every checkpoint, whoever made it, and each answers with its own id.

With a source model, which tells what the weights should be, and with an engine version, which tells
under which names its loader asks, more checks are run. Each check carries a link to the incident
that it would have caught (`incidents.py`).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.artifacts import Check, IntegrityReport
from harness.engines import find_engine
from harness.errors import ReasonCode, RejectedError
from harness.models import digest_folder, unchanged
from harness.verify import (
    checks_config,
    checks_engine,
    checks_experts,
    checks_files,
    checks_kv,
    checks_layout,
    checks_patterns,
    checks_scales,
    checks_sidecars,
    checks_size,
    checks_source,
    checks_tokenizer,
)
from harness.verify.contents import Contents, no_checkpoint
from harness.verify.incidents import incident_of
from harness.verify.modules import kind_of
from harness.verify.scanned import ReadBefore, read_contents

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
    checks_layout.quantizer_state_removed,
    checks_scales.scales_finite,
    checks_scales.scales_positive,
    checks_scales.scales_normal,
    checks_scales.expert_global_scales_equal,
    checks_scales.fused_global_scales_equal,
    checks_experts.expert_scales_distinct,
    checks_scales.fused_input_scales_equal,
    checks_scales.input_scales_measured,
    checks_scales.input_scales_plausible,
    checks_scales.weight_scales_plausible,
    checks_scales.weights_finite,
    checks_scales.weights_not_zero,
    checks_kv.kv_scales_consistent,
    checks_config.quantized_not_ignored,
    checks_config.unquantized_ignored,
    checks_config.unasked_ignored,
    checks_config.routers_and_vision_plain,
    checks_patterns.embeddings_plain,
    checks_patterns.patterns_precise,
    checks_config.patterns_used,
    checks_experts.experts_quantized,
    checks_size.bits_as_claimed,
    checks_config.declarations_agree,
    checks_config.declaration_seen,
    checks_files.index_matches_shards,
    checks_files.weight_files_listed,
    checks_files.manifest_matches_files,
    checks_sidecars.sidecars_present,
    checks_sidecars.sidecars_readable,
    checks_tokenizer.token_ids_in_embedding,
    checks_engine.format_loadable,
)
"""In the order of the report; of several that fail, the first says most about the cause."""
SOURCE_CHECKS: tuple[Callable[[Contents], Check], ...] = (
    checks_source.nibbles_in_order,
    checks_source.scales_in_order,
    checks_source.weights_near_source,
    checks_source.unquantized_copied,
    checks_source.source_tensors_accounted,
    checks_source.draft_head_kept,
    checks_source.config_as_source,
    checks_sidecars.sidecars_as_source,
    checks_tokenizer.tokenizer_as_source,
    checks_sidecars.chat_template_as_source,
    checks_sidecars.generation_config_as_source,
)
"""Run where the source model is named."""
BASELINE_CHECKS: tuple[Callable[[Contents], Check], ...] = (checks_source.weights_near_baseline,)
"""Run where a model is named that the checkpoint is compared with, and may be made from."""
ENGINE_CHECKS: tuple[Callable[[Contents], Check], ...] = (
    checks_engine.engine_names_resolved,
    checks_engine.engine_widths,
)
"""Run where an engine version is named."""


def verify(
    directory: Path,
    *,
    source: Path | None = None,
    baseline: Path | None = None,
    engine: str | None = None,
    before: ReadBefore | None = None,
) -> IntegrityReport:
    """Run every check on the checkpoint in `directory`.

    Args:
        directory: the checkpoint.
        source: folder of the model that it was made from.
        baseline: where there is no `source`, folder of a model that it may be made from.
        engine: such as `vllm==0.33.0`.
        before: what has read files before, while others were still made.

    Raises:
        ModelError: a folder holds no checkpoint at all.
        UsageError: the engine version's rules are not known, or the files hold types that are
            not read.
        EvidenceError: the files were changed or exchanged meanwhile.
    """
    known = find_engine(engine) if engine else None
    if not os.path.isdir(directory):  # noqa: PTH112 -- answers for a name that is too long as well
        raise no_checkpoint(directory)
    digest = digest_folder(directory)
    with unchanged(directory, digest, meanwhile="verified"):
        compared_with = source or baseline
        contents = read_contents(directory, source=compared_with, engine=known, before=before)
    compared = SOURCE_CHECKS if source else BASELINE_CHECKS if baseline else ()
    asked = (*CHECKS, *compared, *(ENGINE_CHECKS if engine else ()))
    report = IntegrityReport(
        checkpoint=str(directory),
        checkpoint_digest=digest,
        checks=tuple(_with_incident(check(contents)) for check in asked),
        input_scales=_input_scale_ranges(contents),
        size=checks_size.declared_size(contents),
    )
    failed = sum(not check.passed for check in report.checks)
    _log.info("verify: %d checks, %d failed", len(report.checks), failed)
    return report


def _with_incident(check: Check) -> Check:
    return replace(check, incident=incident_of(check.id))


def refuse_errors(report: IntegrityReport, *, waived: frozenset[str] = frozenset()) -> None:
    """Refuse a checkpoint that must not be served.

    Args:
        report: what was found.
        waived: ids of checks that may fail.

    Raises:
        RejectedError: a check failed, with the first one's finding.
    """
    errors = [check for check in report.errors if check.id not in waived]
    if not errors:
        return
    first, *others = errors
    also = f"; also {', '.join(check.id for check in others)}" if others else ""
    message = (
        f"{first.id}: {first.message}{also}. "
        f"'harness verify {report.checkpoint}' lists every finding; export the checkpoint again."
    )
    checks = tuple(check.id for check in report.errors)
    raise RejectedError(message, reason=ReasonCode.INTEGRITY_FAILED, checks=checks)


def _input_scale_ranges(contents: Contents) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest input scale by layer and kind."""
    ranges: dict[str, tuple[float, float]] = {}
    for name, value in checks_scales.input_scales(contents):
        kind = kind_of(contents.place_of(name)[0])
        if kind is not None:
            low, high = ranges.get(kind, (value, value))
            ranges[kind] = (min(low, value), max(high, value))
    return ranges
