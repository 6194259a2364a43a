"""Time a calibration on one decoder layer of each kind, to say how long all of it will take.

Nothing that is measured here is kept but the time. The ids are random: the time of a layer hardly
depends on what the text says.

Shapes: B samples of a batch, T tokens of a sample.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import Inventory, QuantPlan, Recipe
from harness.calibrate.forward import LayerwiseRun, RunOptions
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

_CUDA_TOKENS = 32768
"""Of a batch, where the run will find the best number by itself."""
_REPEATS = 4
_QUANTIZED = 2
"""Times of each layer; the first one compiles what is compiled."""
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


class LayerTimes(NamedTuple):
    """What one decoder layer took, in seconds."""

    quantized_s: tuple[float, ...]
    """Of measuring and quantizing its weights, each time."""
    ran_s: tuple[float, ...]
    """For each batch, in their order."""


class LayerCost(NamedTuple):
    """What the decoder layers of one kind take, each."""

    num_layers: int
    num_bytes: int
    quantized_s: float
    """Of measuring and quantizing the weights."""
    call_s: float
    """Of a batch, besides its tokens."""
    token_s: float

    def run_s(self, num_batches: int, num_tokens: int) -> float:
        """Return the seconds of running all batches through one layer."""
        return num_batches * self.call_s + num_tokens * self.token_s


class CalibrationTimes(NamedTuple):
    """What this machine took."""

    start_s: float
    """Of building the model, of reading what is in memory all the time, and of warming up."""
    read_rate: float
    """Bytes of weights read a second."""
    layers: tuple[LayerCost, ...]


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
            return found._replace(read_rate=min(everywhere, found.read_rate))
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

    def run(self, sizes: list[int], length: int) -> CalibrationTimes:
        """Run batches of `sizes` samples, by turns."""
        recipe, source, inventory = self._recipe, self._source, self._inventory
        vocabulary, device = vocabulary_size(source), recipe.device
        batches_BT = [_random_ids(size, length, vocabulary) for size in sizes * _REPEATS]
        budget = Budget(recipe.memory, device)
        started, dtype = time.perf_counter(), stored_dtype(source)
        streamed = StreamedModel(
            source, inventory, device=device, dtype=dtype, one_of_each=_formats(self._plan)
        )
        options = RunOptions(device, recipe.calibration.experts, budget)
        run = LayerwiseRun(streamed, batches_BT, options, Observer(inventory, self._plan))
        with budget.limited():
            times = {layer.number: self._timed(run, layer) for layer in run.layers()}
        counts = {same[0]: len(same) for same in streamed.kinds}
        tokens = [size * length for size in sizes]
        return CalibrationTimes(
            start_s=run.prepared_at - started + sum(map(self._warm_up_s, times.values())),
            read_rate=streamed.bytes_read / max(streamed.read_s, 1e-9),
            layers=tuple(
                LayerCost(
                    num_layers=counts[index],
                    num_bytes=streamed.num_bytes(index),
                    quantized_s=min(found.quantized_s),
                    **_line(found, tokens, flat=device.startswith("cuda")),
                )
                for index, found in times.items()
            ),
        )

    def _timed(self, run: LayerwiseRun, layer: ResidentLayer) -> LayerTimes:
        """Do with a layer what the run will do with each of its kind."""
        quantized_s = []
        for _ in range(_QUANTIZED):
            stacks = list(self._stacked.of(layer))
            self._quantize(stacks, self._weights.measure(stacks))
            quantized_s.append(run.clock.lap())
        ran_s = [run.clock.lap() for _ in run.run_each(layer)]
        return LayerTimes(tuple(quantized_s), tuple(ran_s))

    def _warm_up_s(self, found: LayerTimes) -> float:
        """Return how much longer the first times take, as far as a run will see it again."""
        runs = (found.quantized_s, found.ran_s[0::2], found.ran_s[1::2])
        seconds = sum(times[0] - min(times) for times in runs if times)
        return min(seconds, _WARM_UP_S) if self._recipe.device.startswith("cuda") else seconds


def _random_ids(size: int, length: int, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (size, length), generator=generator)


def _formats(plan: QuantPlan) -> Mapping[str, object]:
    """Return what becomes of each parameter: layers that differ in it take other times."""
    return {
        name: tuple((one.weight_format, one.input_format) for one in members)
        for name, members in by_parameter(plan.quantized).items()
    }


def _line(found: LayerTimes, tokens: Sequence[int], *, flat: bool) -> dict[str, float]:
    """Draw a line through the times of a smaller and a larger batch; the first ones warm up.

    Without two sizes, and where batches are those of the run (`flat`), all is put down to tokens.
    """
    if not tokens:
        return {"call_s": 0.0, "token_s": 0.0}
    few, many = tokens
    few_s, many_s = median(found.ran_s[2::2]), median(found.ran_s[3::2])
    if flat or few == many or many_s <= few_s:
        return {"call_s": 0.0, "token_s": many_s / many}
    token_s = (many_s - few_s) / (many - few)
    return {"call_s": max(0.0, many_s - many * token_s), "token_s": token_s}
