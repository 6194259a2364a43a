"""Measure a model's ranges: every planned weight, and every planned input on real text.

The model runs unquantized, in the type of its files. Ranges are largest absolute values over the
whole set; the formats turn them into scales.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import CalibrationStats, Inventory, QuantPlan, Recipe, thin_experts
from harness.calibrate.batches import CPU_TOKENS, measure_batch_tokens
from harness.calibrate.forward import (
    Way,
    first_layer_alone,
    run_layerwise,
    run_whole,
    show_layers,
    warm_up,
)
from harness.calibrate.memory import Budget
from harness.calibrate.observer import Observer
from harness.calibrate.samples import Sample, make_batches, read_samples
from harness.calibrate.weights import OnWeights, WeightRanges
from harness.errors import ReasonCode, StageError
from harness.models import (
    Source,
    StreamedModel,
    is_out_of_memory,
    layers_too_big,
    load_model,
    stored_dtype,
    tunes_itself,
    vocabulary_size,
)
from harness.ranks import ALONE, Ranks

_log = logging.getLogger("harness.calibrate")


def needs_text(plan: QuantPlan) -> bool:
    """Tell whether a plan quantizes anything but weights."""
    return plan.kv_cache == "fp8" or any(
        planned.input_format is not None for planned in plan.quantized
    )


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
    return _Measurement(recipe, source, inventory, plan, sharing).run()


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
        self._shown: set[str] = set()
        self._budget = Budget(recipe.memory, recipe.device)

    def run(self) -> CalibrationStats:
        """Return all that was measured."""
        with self._budget.kept():
            return self._measured()

    def _measured(self) -> CalibrationStats:
        if not needs_text(self._plan):
            return self._without_text()
        if not self._spec.layerwise:
            self._weights.complete()  # a damaged weight is found before the model runs
        samples = read_samples(self._spec, self._source)
        batch_tokens, num_run = self._batch_tokens(samples), None
        while (num_run := self._observe_until_covered(samples, batch_tokens)) is None:
            batch_tokens = self._fewer_than(batch_tokens, samples)
        self._weights.put_together(self._ranks)
        coverage = self._observer.coverage()
        if thin := thin_experts(coverage, self._spec.coverage):
            _log.info("calibrate: %s", thin)
        _log.info("calibrate: took %s", self._budget.report())
        return CalibrationStats(
            weight_amax=self._weights.complete(),
            input_amax=self._observer.input_amax(),
            coverage=coverage,
            num_samples=num_run,
            num_tokens=sum(len(sample) for sample in samples[:num_run]),
            batch_tokens=batch_tokens,
        )

    def _without_text(self) -> CalibrationStats:
        """Measure the weights alone."""
        _log.info("calibrate: only weights are quantized, so no text is run")
        if self._spec.layerwise:
            if not self._has_room_for(
                lambda: show_layers(self._streamed(), self._way(), self._show)
            ):
                raise layers_too_big(self._device)
            self._weights.put_together(self._ranks)
        weight_amax = self._weights.complete()
        return CalibrationStats(
            weight_amax=weight_amax, input_amax={}, coverage=(), num_samples=0, num_tokens=0
        )

    def _streamed(self, one_of_each: Mapping[str, object] | None = None) -> StreamedModel:
        return StreamedModel(
            self._source,
            self._inventory,
            device=self._device,
            dtype=stored_dtype(self._source),
            one_of_each=one_of_each,
        )

    def _batch_tokens(self, samples: Sequence[Sample]) -> int:
        """Return the tokens of a batch at most: those asked for, or what this machine runs best."""
        if self._spec.batch_tokens is not None:
            return self._spec.batch_tokens
        if not self._device.startswith("cuda"):
            return CPU_TOKENS
        vocabulary = vocabulary_size(self._source)
        length = max(len(sample) for sample in samples)
        with first_layer_alone(self._streamed(), self._way()) as run:
            found = measure_batch_tokens(run, length=length, vocabulary=vocabulary)
        ranks_found: list[int] = self._ranks.gathered(found)
        return ranks_found[0]

    def _way(self) -> Way:
        return Way(self._device, self._spec.experts, self._budget, self._ranks)

    def _observe_until_covered(self, samples: Sequence[Sample], batch_tokens: int) -> int | None:
        """Run `size` samples, then as many again while too many experts are thin.

        Returns:
            How many samples were run; None where the memory was not enough for one of the ranks.
        """
        spec = self._spec
        self._observer = Observer(self._inventory, self._plan)
        self._tune(make_batches(samples, batch_tokens=batch_tokens))
        num_run = 0
        while num_run < len(samples):
            chunk = samples[num_run : num_run + spec.size]
            batches_BT = make_batches(chunk, batch_tokens=batch_tokens)
            is_enough = self._observe(list(self._ranks.share(batches_BT)))
            if any(self._ranks.added([not is_enough])):
                return None
            self._observer.put_together(self._ranks)
            num_run += len(chunk)
            thin = thin_experts(self._observer.counts(), spec.coverage)
            if thin is None or not thin.too_many:
                break
            if num_run < len(samples):
                _log.info("calibrate: %s; more samples are run", thin)
        return min(num_run, len(samples))

    def _tune(self, batches_BT: Sequence[Tensor]) -> None:
        """Let the first rank try the variants of kernels that tune themselves, before all run.

        Each rank would find the fastest by itself, and variants round differently.
        """
        if self._ranks.count == 1 or not tunes_itself(self._device):
            return
        if self._ranks.number == 0:
            of_each_shape = {batch_BT.shape: batch_BT for batch_BT in batches_BT}
            self._has_room_for(
                lambda: warm_up(
                    self._streamed(one_of_each={}), [*of_each_shape.values()], self._way()
                )
            )
        self._ranks.gathered(None)  # the others wait here

    def _fewer_than(self, batch_tokens: int, samples: Sequence[Sample]) -> int:
        """Return half of `batch_tokens`, where a batch can be made smaller.

        Raises:
            StageError: a batch holds one sample already.
        """
        longest = max(len(sample) for sample in samples)
        if batch_tokens <= longest:
            advice = "" if self._spec.layerwise else ", or set calibration.layerwise to true"
            message = (
                f"calibration ran out of memory on '{self._device}' with one sample of {longest} "
                f"tokens a batch. Lower --calib-seq{advice}."
            )
            raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)
        fewer = max(longest, batch_tokens // 2)
        _log.info("calibrate: out of memory at %d tokens a batch; %d are run", batch_tokens, fewer)
        return fewer

    def _show(self, weights: Mapping[str, Tensor]) -> None:
        """Measure the weights of a layer and show them; each is shown once."""
        if self._shown.isdisjoint(weights):
            self._shown |= weights.keys()
            found = self._weights.see(weights)
            if self._on_weights is not None:
                self._on_weights(weights, found)

    def _observe(self, batches_BT: list[Tensor]) -> bool:
        """Load the model and run it; tell whether the memory was enough. It is free afterwards."""
        return self._has_room_for(lambda: self._run(batches_BT))

    def _has_room_for(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        return False

    def _run(self, batches_BT: list[Tensor]) -> None:
        source, observer, way = self._source, self._observer, self._way()
        if self._spec.layerwise:
            run_layerwise(self._streamed(), batches_BT, observer, way, on_layer=self._show)
        else:
            dtype = stored_dtype(source)
            model = load_model(source, self._inventory, device=self._device, dtype=dtype)
            run_whole(model, batches_BT, observer, way)
