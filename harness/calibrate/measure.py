"""Measure a model's ranges: every planned weight, and every planned input on real text.

The model runs unquantized, in the type of its files. Ranges are largest absolute values over the
whole set; the formats turn them into scales.
"""

import logging
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import CalibrationStats, Inventory, QuantPlan, Recipe, thin_experts
from harness.calibrate.forward import OnLayer, Way, run_layerwise, run_whole
from harness.calibrate.observer import Observer
from harness.calibrate.samples import Sample, make_batches, read_samples
from harness.calibrate.weights import OnWeights, WeightRanges
from harness.errors import ReasonCode, StageError
from harness.models import Source, StreamedModel, load_model, stored_dtype
from harness.ranks import ALONE, Ranks

_log = logging.getLogger("harness.calibrate")


class Sharing(NamedTuple):
    """With whom a calibration shares what it has in memory, and its work."""

    on_weights: OnWeights | None = None
    """Is shown a model that is run layer by layer while it is in memory, each layer once."""
    ranks: Ranks = ALONE
    """Share the batches, and the layers that are shown; each returns the same stats."""


def calibrate(
    recipe: Recipe,
    source: Source,
    inventory: Inventory,
    plan: QuantPlan,
    sharing: Sharing = Sharing(),  # noqa: B008 - an immutable default
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
        return _Measurement(recipe, source, inventory, plan, sharing).run()
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        advice = "" if recipe.calibration.layerwise else ", or set calibration.layerwise to true"
        message = (
            f"calibration ran out of memory on '{recipe.device}'. Lower calibration.batch_tokens "
            f"(now {recipe.calibration.batch_tokens}){advice}."
        )
        raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY) from error


class _Measurement:
    """One calibration: the model is run, and what was seen is collected."""

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        inventory: Inventory,
        plan: QuantPlan,
        sharing: Sharing,
    ) -> None:
        self._on_weights, self._ranks = sharing
        self._spec, self._device = recipe.calibration, recipe.device
        self._source, self._inventory, self._plan = source, inventory, plan
        self._weights = WeightRanges(source, plan, device=recipe.device)
        self._observer = Observer(inventory, plan)

    def run(self) -> CalibrationStats:
        """Return all that was measured."""
        needs_text = self._plan.kv_cache == "fp8" or any(
            planned.input_format is not None for planned in self._plan.quantized
        )
        if not needs_text:
            _log.info("calibrate: only weights are quantized, so no text is run")
            weight_amax = self._weights.complete()
            return CalibrationStats(
                weight_amax=weight_amax, input_amax={}, coverage=(), num_samples=0, num_tokens=0
            )
        if not self._spec.layerwise:
            self._weights.complete()  # a damaged weight is found before the model runs
        samples = self._observe_until_covered()
        self._weights.put_together(self._ranks)
        coverage = self._observer.coverage()
        if thin := thin_experts(coverage, self._spec.coverage):
            _log.info("calibrate: %s", thin)
        return CalibrationStats(
            weight_amax=self._weights.complete(),
            input_amax=self._observer.input_amax(),
            coverage=coverage,
            num_samples=len(samples),
            num_tokens=sum(len(sample) for sample in samples),
        )

    def _observe_until_covered(self) -> list[Sample]:
        """Run `size` samples, then as many again while too many experts are thin.

        Returns:
            The samples that were run.
        """
        spec = self._spec
        samples = read_samples(spec, self._source)
        num_run = 0
        while num_run < len(samples):
            chunk = samples[num_run : num_run + spec.size]
            batches_BT = make_batches(chunk, batch_tokens=spec.batch_tokens)
            batches_BT = list(self._ranks.share(batches_BT))
            self._observe(batches_BT, None if num_run else self._show)
            self._observer.put_together(self._ranks)
            num_run += len(chunk)
            thin = thin_experts(self._observer.counts(), spec.coverage)
            if thin is None or not thin.too_many:
                break
            if num_run < len(samples):
                _log.info("calibrate: %s; more samples are run", thin)
        return samples[:num_run]

    def _show(self, weights: Mapping[str, Tensor]) -> None:
        found = self._weights.see(weights)
        if self._on_weights is not None:
            self._on_weights(weights, found)

    def _observe(self, batches_BT: list[Tensor], on_layer: OnLayer | None) -> None:
        """Load the model and run it; its memory is free afterwards."""
        source, inventory, device = self._source, self._inventory, self._device
        observer, experts, dtype = self._observer, self._spec.experts, stored_dtype(source)
        if self._spec.layerwise:
            streamed = StreamedModel(source, inventory, device=device, dtype=dtype)
            way = Way(device=device, experts=experts, ranks=self._ranks)
            run_layerwise(streamed, batches_BT, observer, way, on_layer=on_layer)
        else:
            model = load_model(source, inventory, device=device, dtype=dtype)
            run_whole(model, batches_BT, observer, Way(device=device, experts=experts))


def _is_out_of_memory(error: Exception) -> bool:
    """Tell running out of memory from other failures; on the CPU torch has no class for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)
