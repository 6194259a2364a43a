"""Measure a model's ranges: every planned weight, and every planned input on real text.

The model runs unquantized, in the type of its files. Ranges are largest absolute values over the
whole set; the formats turn them into scales.
"""

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial

import torch
from torch import Tensor

from harness.algorithms import SecondMoments
from harness.artifacts import (
    CalibrationStats,
    Inventory,
    KvFormat,
    PlannedLinear,
    QuantPlan,
    Recipe,
    Smoothing,
    thin_experts,
)
from harness.calibrate.batches import CPU_TOKENS, measure_batch_tokens
from harness.calibrate.following import Following
from harness.calibrate.forward import LayerwiseRun, RunOptions, run_whole
from harness.calibrate.memory import Budget
from harness.calibrate.moments import bytes_of_moments
from harness.calibrate.observer import Observer
from harness.calibrate.samples import Sample, make_batches, read_samples
from harness.calibrate.smoothing import Smoother
from harness.calibrate.weights import WeightRanges
from harness.errors import ReasonCode, StageError
from harness.formats import has_input_scale
from harness.models import (
    ResidentLayer,
    Source,
    StackedWeights,
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
_Layers = Generator[ResidentLayer, None, bool]
"""Layers in turn; returns whether the memory was enough for all ranks."""


def needs_text(plan: QuantPlan) -> bool:
    """Tell whether a plan needs the range of anything but weights."""
    return (
        KvFormat(plan.kv_cache).has_scales
        or plan.algorithm.needs_inputs
        or any(has_input_scale(planned.input_format) for planned in plan.quantized)
    )


def calibrate(
    recipe: Recipe, source: Source, inventory: Inventory, plan: QuantPlan
) -> CalibrationStats:
    """Measure what `plan` needs to quantize `source`, and do nothing else with its layers.

    Weights that smoothing changes are measured while they are in memory.

    Raises:
        HarnessError: as Calibration.layers.
    """
    calibration = Calibration(recipe, source, inventory, plan)
    weights = StackedWeights(source, plan)
    with closing(calibration.layers()) as layers:
        for layer in layers:
            with calibration.within_memory():
                calibration.run(layer)
                if plan.algorithm.smoothing is not Smoothing.NONE:
                    calibration.weights.measure(weights.of(layer))
    return calibration.stats()


class Calibration:
    """One calibration, which lets its caller use each decoder layer's weights while it has them.

    The caller runs every layer that `layers` yields:

        for layer in calibration.layers():
            with calibration.within_memory():
                ...
                calibration.run(layer)
        stats = calibration.stats()
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        inventory: Inventory,
        plan: QuantPlan,
        ranks: Ranks = ALONE,
    ) -> None:
        """Take what is calibrated; `ranks` share the batches, and each has the same stats."""
        self._spec, self._device, self._ranks = recipe.calibration, recipe.device, ranks
        self._source, self._inventory, self._plan = source, inventory, plan
        self.weights = WeightRanges(source, plan, device=recipe.device)
        self._observer = Observer(inventory, plan)
        self._budget = Budget(recipe.memory, recipe.device)
        self._options = RunOptions(recipe.device, recipe.calibration.experts, self._budget)
        self._run: LayerwiseRun | None = None
        """The run that yields layers at present."""
        self._fits = True
        """Whether the memory was enough since `_run` began."""
        self._stats: CalibrationStats | None = None
        self._following: Following | None = None
        self._follows = False
        """Whether layers that come now are quantized: not where more samples are run."""
        self._smoother: Smoother | None = None
        if plan.algorithm.smoothing is not Smoothing.NONE:
            self._smoother = Smoother(source, inventory, plan)

    def layers(self) -> Generator[ResidentLayer, None, None]:
        """Yield each decoder layer while its weights are in memory, the first to the last.

        They come again where more samples are run to reach experts, and where the memory was not
        enough for a batch. Where the model runs whole none comes. A plan that quantizes neither
        inputs nor calibrated keys and values needs no text: each layer comes once and is not run.

        Raises:
            CorruptWeightError: a planned weight holds NaN or infinity.
            DataError: the calibration data cannot be used with this model.
            RejectedError: experts or planned layers were not seen, or no scale can be made of
                what they saw.
            StageError: the memory is not enough.
        """
        with self._budget.limited():
            if needs_text(self._plan):
                yield from self._over_text()
            else:
                yield from self._weights_alone()

    @contextmanager
    def within_memory(self) -> Iterator[None]:
        """Note that the memory was not enough for what is done here; `layers` tries again."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._fits = False

    def run(self, layer: ResidentLayer) -> None:
        """Run a layer over all batches; smooth it before, where the plan asks for it."""
        if self._run is None:
            return
        if self._smoother is not None:
            self._smoother.smooth(layer, partial(self._run.on_first_batch, layer))
        if self._following is not None:
            self._following.keep()
        self._run.run(layer)

    def largest_inputs(self, members: Iterable[PlannedLinear]) -> Mapping[str, float]:
        """Return the largest inputs that were seen so far, by quantizer."""
        return self._observer.largest({one.linear.input_quantizer for one in members})

    def shown_for(self, planned: PlannedLinear) -> str | None:
        """Return the parameter whose input decides about a layer; None if none does."""
        return self._observer.moments.shown_for(planned)

    @property
    def following(self) -> Following:
        """What is behind quantized layers, while layers are yielded, if the plan asks for it."""
        if self._following is None:
            message = "nothing is followed"
            raise ValueError(message)
        return self._following

    def moments(self, members: Sequence[PlannedLinear]) -> SecondMoments:
        """Return what the inputs of some layers were like in the decoder layer that ran last.

        Raises:
            RejectedError: they were not seen.
        """
        return self._observer.moments.of(members)

    def stats(self) -> CalibrationStats:
        """Return all that was measured, when there are no more layers."""
        if self._stats is None:
            message = "the calibration has not come to its end"
            raise ValueError(message)
        return self._stats

    def _weights_alone(self) -> Iterator[ResidentLayer]:
        _log.info("calibrate: only weights are quantized, so no text is run")
        if self._spec.layerwise:
            if not (yield from self._pass_over([])):
                raise layers_too_big(self._device)
            self.weights.merge_ranks(self._ranks)
        weight_amax = self.weights.complete()
        self._stats = CalibrationStats(
            weight_amax=weight_amax, input_amax={}, coverage=(), num_samples=0, num_tokens=0
        )

    def _over_text(self) -> Iterator[ResidentLayer]:
        self._budget.check_moments(bytes_of_moments(self._plan))
        if not self._spec.layerwise:
            self.weights.complete()  # a damaged weight is found before the model runs
        samples = read_samples(self._spec, self._source)
        batch_tokens = self._batch_tokens(samples)
        while (num_run := (yield from self._until_covered(samples, batch_tokens))) is None:
            batch_tokens = self._fewer_than(batch_tokens, samples)
        self.weights.merge_ranks(self._ranks)
        coverage = self._observer.coverage()
        if thin := thin_experts(coverage, self._spec.coverage):
            _log.info("calibrate: %s", thin)
        _log.info("calibrate: took %s", self._budget.report())
        self._stats = CalibrationStats(
            weight_amax=self.weights.complete(),
            input_amax=self._observer.input_amax(),
            coverage=coverage,
            num_samples=num_run,
            num_tokens=sum(len(sample) for sample in samples[:num_run]),
            batch_tokens=batch_tokens,
            folded={} if self._smoother is None else self._smoother.folded(),
        )

    def _until_covered(
        self, samples: Sequence[Sample], batch_tokens: int
    ) -> Generator[ResidentLayer, None, int | None]:
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
            self._follows = self._plan.algorithm.follows_quantized and num_run == 0
            if not (yield from self._pass_over(list(self._ranks.share(batches_BT)))):
                return None
            self._observer.merge_ranks(self._ranks)
            num_run += len(chunk)
            thin = thin_experts(self._observer.counts(), spec.coverage)
            if thin is None or not thin.too_many:
                break
            if num_run < len(samples):
                _log.info("calibrate: %s; more samples are run", thin)
        return min(num_run, len(samples))

    def _pass_over(self, batches_BT: list[Tensor]) -> _Layers:
        """Run the model over batches; its memory is free afterwards."""
        self._fits = True
        with self.within_memory():
            if self._spec.layerwise:
                yield from self._layers_of(batches_BT)
            else:
                self._run_whole(batches_BT)
        self._run = self._following = None
        if not self._fits and self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        return not any(self._ranks.all_sum([not self._fits]))

    def _run_whole(self, batches_BT: list[Tensor]) -> None:
        dtype = stored_dtype(self._source)
        model = load_model(self._source, self._inventory, device=self._device, dtype=dtype)
        run_whole(model, batches_BT, self._observer, self._options)

    def _layers_of(self, batches_BT: list[Tensor]) -> Iterator[ResidentLayer]:
        """Yield layers as long as the memory is enough."""
        observer = self._observer if batches_BT else None
        self._run = LayerwiseRun(self._streamed(), batches_BT, self._options, observer)
        if self._follows and batches_BT:
            self._following = Following(self._run, self._observer.moments)
        with closing(self._run.layers()) as layers:
            for layer in layers:
                yield layer
                if not self._fits:
                    return

    def _streamed(self, *, one_of_each: bool = False) -> StreamedModel:
        return StreamedModel(
            self._source,
            self._inventory,
            device=self._device,
            dtype=stored_dtype(self._source),
            one_of_each={} if one_of_each else None,
        )

    def _batch_tokens(self, samples: Sequence[Sample]) -> int:
        """Return the tokens of a batch at most: those asked for, or what this machine runs best."""
        if self._spec.batch_tokens is not None:
            return self._spec.batch_tokens
        if not self._device.startswith("cuda"):
            return CPU_TOKENS
        vocabulary = vocabulary_size(self._source)
        length = max(len(sample) for sample in samples)
        run = LayerwiseRun(self._streamed(), [], self._options)
        with closing(run.layers()) as layers:
            first = partial(run.try_alone, next(layers))
            found = measure_batch_tokens(first, length=length, vocabulary=vocabulary)
        ranks_found: list[int] = self._ranks.all_gather(found)
        return ranks_found[0]

    def _tune(self, batches_BT: Sequence[Tensor]) -> None:
        """Let the first rank try the variants of kernels that tune themselves, before all run.

        Each rank would find the fastest by itself, and variants round differently.
        """
        if self._ranks.count == 1 or not tunes_itself(self._device):
            return
        if self._ranks.number == 0:
            of_each_shape = {batch_BT.shape: batch_BT for batch_BT in batches_BT}
            streamed = self._streamed(one_of_each=True)
            warm_up = LayerwiseRun(streamed, [*of_each_shape.values()], self._options)
            # Where the memory is not enough, the run itself will find out.
            with self.within_memory(), closing(warm_up.layers()) as layers:
                for layer in layers:
                    warm_up.run(layer)
        self._ranks.all_gather(None)  # the others wait here

    def _fewer_than(self, batch_tokens: int, samples: Sequence[Sample]) -> int:
        """Return half of `batch_tokens`, where a batch can be made smaller.

        Raises:
            StageError: a batch holds one sample already.
        """
        longest = max(len(sample) for sample in samples)
        if self._plan.algorithm.follows_quantized:
            message = (
                f"calibration ran out of memory on '{self._device}' at {batch_tokens} tokens a "
                "batch, and what is quantized already decides what later layers see. Lower "
                "batch_tokens in the recipe's calibration, or --calib-size."
            )
            raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)
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
