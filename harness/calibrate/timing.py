"""Time a calibration on one decoder layer of each kind, to say how long all of it will take.

Nothing that is measured here is kept but the time. The ids are random: the time of a layer hardly
depends on what the text says. A step is tried again while its times differ; what they leave open
stays a range.

Shapes: B samples of a batch, T tokens of a sample.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import Inventory, QuantPlan, Recipe
from harness.calibrate.forward import LayerwiseRun, RunOptions, wait_for
from harness.calibrate.measure import needs_text
from harness.calibrate.memory import Budget
from harness.calibrate.observer import Observer
from harness.calibrate.samples import Extent
from harness.calibrate.weights import WeightRanges
from harness.errors import ReasonCode, StageError
from harness.models import (
    ResidentLayer,
    Source,
    Stack,
    StackedWeights,
    StreamedModel,
    by_parameter,
    is_out_of_memory,
    layers_too_big,
    read_rate,
    stored_dtype,
    vocabulary_size,
)
from harness.stopwatch import NOTHING, Clock, Lap, Stopwatch, TimeRange, measured

_CUDA_TOKENS = 32768
"""Of a batch, where the run will find the best number by itself."""
_MOST_RUNS = {"cpu": 8, "cuda": 4}
"""Of a batch of each size, besides the first; three are run where they take equally long. A GPU
keeps the hidden states of all of them."""
_LEAST_RUNS = 3
_LEAST_QUANTIZED = 1
"""Besides the first time, which compiles what is compiled."""
_WARM_UP_S = 1.0
"""The most that counts of a warm-up of a layer on a GPU: in what goes beyond it kernels are
compiled and tried, and Triton keeps them for the run."""
_CPU_MOST = 1024
"""Tokens of a batch that a CPU tries; more of them take longer in proportion."""


class Workload(NamedTuple):
    """What a calibration has to do, besides knowing the model."""

    extent: Extent
    quantize: Callable[[Sequence[Stack], Mapping[str, float]], object]
    """Takes the weights of a layer and their ranges, and does what the run does with them."""
    clock: Clock | None = None
    """Another than this machine's."""


class LayerCost(NamedTuple):
    """What the decoder layers of one kind take, each."""

    num_layers: int
    num_bytes: int
    quantized: TimeRange
    """Of measuring and quantizing the weights."""
    call_s: float
    """Of a batch, besides its tokens, with the machine to itself."""
    token_s: float
    times: float
    """How many times longer batches took than they would have with the machine to themselves."""

    def run(self, num_batches: int, num_tokens: int) -> TimeRange:
        """Return the time of running all batches through one layer."""
        alone_s = num_batches * self.call_s + num_tokens * self.token_s
        return TimeRange(low_s=alone_s, high_s=alone_s * self.times)


class CalibrationTimes(NamedTuple):
    """What this machine took."""

    start: TimeRange
    """Of building the model, of reading what is in memory all the time, and of warming up."""
    byte: TimeRange
    """Of reading a byte of the weights."""
    layers: tuple[LayerCost, ...]


class _LayerTimes(NamedTuple):
    """What one decoder layer took."""

    warm_up: TimeRange
    """How much longer the first times took than later ones."""
    quantized: TimeRange
    ran: tuple[TimeRange, ...]
    """A batch of each size."""


def time_calibration(
    recipe: Recipe,
    source: Source,
    inventory: Inventory,
    plan: QuantPlan,
    workload: Workload,
) -> CalibrationTimes:
    """Run one decoder layer of each kind on some batches, and quantize its weights.

    Raises:
        ModelError: the model cannot be built or read.
        StageError: a layer, or one sample, does not fit into the memory.
    """
    extent = workload.extent
    length = max(2, extent.num_tokens // max(1, extent.num_samples))
    samples = max(1, _batch_tokens(recipe, extent) // length) if needs_text(plan) else 0
    timed = _Timed(recipe, source, inventory, plan, workload)
    everywhere = read_rate(source)  # before some of it is read again and again
    while True:
        try:
            found = timed.run([max(1, samples // 2), samples] if samples else [], length)
            slowest_s = max(1 / everywhere, found.byte.high_s)
            return found._replace(byte=TimeRange(low_s=1 / everywhere, high_s=slowest_s))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if recipe.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if samples <= 1:
            raise _too_big(recipe, length if samples else 0)
        samples //= 2


def _batch_tokens(recipe: Recipe, extent: Extent) -> int:
    """Return the tokens of the batch that is tried: the run's, where that takes no long wait."""
    if recipe.device.startswith("cuda") and recipe.calibration.batch_tokens is None:
        return _CUDA_TOKENS
    mean = extent.num_tokens // max(1, extent.num_batches)
    return mean if recipe.device.startswith("cuda") else min(mean, _CPU_MOST)


def _too_big(recipe: Recipe, length: int) -> StageError:
    if not length:
        return layers_too_big(recipe.device)
    message = (
        f"one sample of {length} tokens does not fit into the memory of '{recipe.device}'. "
        "Lower --calib-seq, or allow more memory."
    )
    return StageError(message, reason=ReasonCode.OUT_OF_MEMORY)


class _Timed:
    """A calibration of which one layer of each kind is run."""

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        inventory: Inventory,
        plan: QuantPlan,
        workload: Workload,
    ) -> None:
        self._recipe, self._source, self._inventory = recipe, source, inventory
        self._plan, self._quantize = plan, workload.quantize
        self._stacked = StackedWeights(source, plan)
        self._weights = WeightRanges(source, plan, device=recipe.device)
        settle = partial(wait_for, torch.device(recipe.device))
        self._stopwatch = Stopwatch(workload.clock, settle=settle)

    def run(self, sizes: list[int], length: int) -> CalibrationTimes:
        """Run batches of `sizes` samples, by turns."""
        recipe, source, inventory = self._recipe, self._source, self._inventory
        vocabulary, device = vocabulary_size(source), recipe.device
        rounds = 1 + _MOST_RUNS["cuda" if device.startswith("cuda") else "cpu"]
        batches_BT = [_random_ids(size, length, vocabulary) for size in sizes * rounds]
        budget = Budget(recipe.memory, device)
        self._stopwatch.lap()
        started, dtype = time.perf_counter(), stored_dtype(source)
        streamed = StreamedModel(
            source, inventory, device=device, dtype=dtype, one_of_each=_formats(self._plan)
        )
        options = RunOptions(device, recipe.calibration.experts, budget)
        run = LayerwiseRun(streamed, batches_BT, options, Observer(inventory, self._plan))
        times: dict[int, _LayerTimes] = {}
        start = NOTHING
        with budget.limited():
            for layer in run.layers():
                lap = self._stopwatch.lap()
                if not times:
                    start = _share(lap, run.prepared_at - started - self._compiled_s(run.tried_s))
                times[layer.number] = self._timed(run, layer, len(sizes))
        counts = {same[0]: len(same) for same in streamed.kinds}
        tokens = [size * length for size in sizes]
        byte_s = max(streamed.read_s, 1e-9) / streamed.bytes_read
        return CalibrationTimes(
            start=sum((found.warm_up for found in times.values()), start),
            byte=TimeRange(low_s=byte_s, high_s=byte_s),
            layers=tuple(
                LayerCost(
                    num_layers=counts[index],
                    num_bytes=streamed.num_bytes(index),
                    quantized=found.quantized,
                    **_line(found.ran, tokens, flat=device.startswith("cuda")),
                )
                for index, found in times.items()
            ),
        )

    def _timed(self, run: LayerwiseRun, layer: ResidentLayer, num_sizes: int) -> _LayerTimes:
        """Do with a layer what the run will do with each of its kind."""

        def quantized() -> Iterator[Lap]:
            while True:
                stacks = list(self._stacked.of(layer))
                self._quantize(stacks, self._weights.measure(stacks))
                yield self._stopwatch.lap()

        laps = quantized()
        first = next(laps)
        (again,) = measured(zip(laps, strict=False), least=_LEAST_QUANTIZED)
        warm_up = self._warm_up(first, again)
        if not num_sizes:
            return _LayerTimes(warm_up, again, ())
        self._stopwatch.lap()
        with closing(run.run_each(layer)) as batches:
            laps = (self._stopwatch.lap() for _ in batches)
            firsts = list(islice(laps, num_sizes))
            ran = measured(zip(*[laps] * num_sizes, strict=False), least=_LEAST_RUNS)
        warm_ups = map(self._warm_up, firsts, ran)
        return _LayerTimes(sum(warm_ups, warm_up), again, ran)

    def _warm_up(self, first: Lap, later: TimeRange) -> TimeRange:
        """Return how much longer the first time took, as far as a run will see it again."""
        alone_s, wall_s = (max(0.0, one - later.low_s) for one in (first.alone_s, first.wall_s))
        return TimeRange(
            low_s=alone_s - self._compiled_s(alone_s), high_s=wall_s - self._compiled_s(wall_s)
        )

    def _compiled_s(self, warm_up_s: float) -> float:
        """Return what of a warm-up no run will see again."""
        on_gpu = self._recipe.device.startswith("cuda")
        return max(0.0, warm_up_s - _WARM_UP_S) if on_gpu else 0.0


def _share(lap: Lap, seconds: float) -> TimeRange:
    """Return the time of the beginning of a lap, as much disturbed as all of it."""
    return TimeRange(low_s=seconds * lap.alone_s / lap.wall_s, high_s=seconds)


def _random_ids(size: int, length: int, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (size, length), generator=generator)


def _formats(plan: QuantPlan) -> Mapping[str, object]:
    """Return what becomes of each parameter: layers that differ in it take other times."""
    return {
        name: tuple((one.weight_format, one.input_format) for one in members)
        for name, members in by_parameter(plan.quantized).items()
    }


def _line(ran: Sequence[TimeRange], tokens: Sequence[int], *, flat: bool) -> dict[str, float]:
    """Draw a line through the times of a smaller and a larger batch.

    Without two sizes, and where batches are those of the run (`flat`), all is put down to tokens.
    """
    if not tokens:
        return {"call_s": 0.0, "token_s": 0.0, "times": 1.0}
    few, many = tokens
    few_s, many_s = (one.low_s for one in ran)
    times = max(one.high_s / one.low_s for one in ran)
    if flat or few == many or many_s <= few_s:
        return {"call_s": 0.0, "token_s": many_s / many, "times": times}
    token_s = (many_s - few_s) / (many - few)
    return {"call_s": max(0.0, many_s - many * token_s), "token_s": token_s, "times": times}
