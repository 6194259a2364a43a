"""Measure a model's ranges: every planned weight, and every planned input on real text.

The model runs unquantized, in the type of its files. Ranges are largest absolute values over the
whole set; the formats turn them into scales.
"""

import logging
from functools import partial

import torch
from torch import Tensor

from harness.artifacts import CalibrationStats, Inventory, QuantPlan, Recipe, thin_experts
from harness.calibrate.forward import run_layerwise, run_whole
from harness.calibrate.observer import Observer
from harness.calibrate.samples import Sample, make_batches, read_samples
from harness.calibrate.weights import weight_amax
from harness.errors import ReasonCode, StageError
from harness.models import Source, StreamedModel, load_model, stored_dtype

_log = logging.getLogger("harness.calibrate")


def calibrate(
    recipe: Recipe, source: Source, inventory: Inventory, plan: QuantPlan
) -> CalibrationStats:
    """Measure what `plan` needs to quantize `source`.

    A plan that quantizes neither inputs nor calibrated keys and values needs no text: none is
    run, and the stats have no samples.

    Raises:
        CorruptWeightError: a planned weight holds NaN or infinity.
        DataError: the calibration data cannot be used with this model.
        RejectedError: experts or planned layers were not seen, or no scale can be made of
            what they saw.
        StageError: the memory is not enough.
    """
    try:
        return _measure(recipe, source, inventory, plan)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        advice = "" if recipe.calibration.layerwise else ", or set calibration.layerwise to true"
        message = (
            f"calibration ran out of memory on '{recipe.device}'. Lower calibration.batch_tokens "
            f"(now {recipe.calibration.batch_tokens}){advice}."
        )
        raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY) from error


def _measure(
    recipe: Recipe, source: Source, inventory: Inventory, plan: QuantPlan
) -> CalibrationStats:
    spec = recipe.calibration
    stats = partial(CalibrationStats, weight_amax=weight_amax(source, plan, device=recipe.device))
    if plan.kv_cache != "fp8" and all(p.input_format is None for p in plan.quantized):
        _log.info("calibrate: only weights are quantized, so no text is run")
        return stats(input_amax={}, coverage=(), num_samples=0, num_tokens=0)
    observer = Observer(inventory, plan)
    samples = _observe_until_covered(recipe, source, inventory, observer)
    coverage = observer.coverage()
    if thin := thin_experts(coverage, spec.coverage):
        _log.info("calibrate: %s", thin)
    return stats(
        coverage=coverage,
        input_amax=observer.input_amax(),
        num_samples=len(samples),
        num_tokens=sum(len(sample) for sample in samples),
    )


def _observe_until_covered(
    recipe: Recipe, source: Source, inventory: Inventory, observer: Observer
) -> list[Sample]:
    """Run `size` samples, then as many again while too many experts are thin and there are more.

    Returns:
        The samples that were run.
    """
    spec = recipe.calibration
    samples = read_samples(spec, source)
    num_run = 0
    while num_run < len(samples):
        chunk = samples[num_run : num_run + spec.size]
        batches_BT = make_batches(chunk, batch_tokens=spec.batch_tokens)
        _observe(recipe, source, inventory, batches_BT, observer)
        num_run += len(chunk)
        thin = thin_experts(observer.counts(), spec.coverage)
        if thin is None or not thin.too_many:
            break
        if num_run < len(samples):
            _log.info("calibrate: %s; more samples are run", thin)
    return samples[:num_run]


def _observe(
    recipe: Recipe,
    source: Source,
    inventory: Inventory,
    batches_BT: list[Tensor],
    observer: Observer,
) -> None:
    """Load the model and run it; its memory is free afterwards."""
    spec, device, dtype = recipe.calibration, recipe.device, stored_dtype(source)
    if spec.layerwise:
        streamed = StreamedModel(source, inventory, device=device, dtype=dtype)
        run_layerwise(streamed, batches_BT, observer, device=device, experts=spec.experts)
    else:
        model = load_model(source, inventory, device=device, dtype=dtype)
        run_whole(model, batches_BT, observer, device=device, experts=spec.experts)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell running out of memory from other failures; on the CPU torch has no class for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)
