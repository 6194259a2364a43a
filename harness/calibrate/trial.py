"""Try a calibration on one decoder layer of each kind, to say how long all of it will take.

Nothing that is measured here is kept but the time. The ids are random: the time of a layer hardly
depends on what the text says.

Shapes: B samples of a batch, T tokens of a sample.
"""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import Inventory, QuantPlan, Recipe
from harness.calibrate.forward import LayerTrial, Way, try_layers
from harness.calibrate.measure import needs_text
from harness.calibrate.memory import Budget, is_out_of_memory
from harness.calibrate.observer import Observer
from harness.calibrate.samples import Extent
from harness.calibrate.weights import OnWeights, WeightRanges
from harness.errors import ReasonCode, StageError
from harness.models import Source, StreamedModel, stored_dtype, vocabulary_size

_CUDA_TOKENS = 32768
"""Of a batch, where the run will find the best number by itself."""
_REPEATS = 4
_CPU_MOST = 1024
"""Tokens of a batch that a CPU tries; more of them take longer in proportion."""


class LayerCost(NamedTuple):
    """What the decoder layers of one kind take, each."""

    num_layers: int
    num_bytes: int
    shown_s: float
    """Of measuring and quantizing the weights."""
    call_s: float
    """Of a batch, besides its tokens."""
    token_s: float

    def run_s(self, num_batches: int, num_tokens: int) -> float:
        """Return the seconds of running all batches through one layer."""
        return num_batches * self.call_s + num_tokens * self.token_s


class Asked(NamedTuple):
    """What a trial is about, besides the model."""

    extent: Extent
    on_weights: OnWeights
    """Is shown the weights as in the run."""


class Trial(NamedTuple):
    """What this machine did."""

    start_s: float
    """Of building the model, of reading what is in memory all the time, and of warming up."""
    read_rate: float
    """Bytes of decoder layers read a second."""
    layers: tuple[LayerCost, ...]


def try_calibration(
    recipe: Recipe,
    source: Source,
    inventory: Inventory,
    plan: QuantPlan,
    asked: Asked,
) -> Trial:
    """Run one decoder layer of each kind on some batches, and show its weights.

    Raises:
        ModelError: the model cannot be built or read.
        StageError: one sample does not fit into the memory.
    """
    extent = asked.extent
    length = max(2, extent.num_tokens // max(1, extent.num_samples))
    samples = max(1, _batch_tokens(recipe, extent) // length)
    job = _Trial(recipe, source, inventory, plan, asked.on_weights)
    while samples:
        sizes = [max(1, samples // 2), samples] if needs_text(plan) else []
        try:
            return job.run(sizes, length)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        samples //= 2
    message = (
        f"one sample of {length} tokens does not fit into the memory of '{recipe.device}'. "
        "Lower --calib-seq, or allow more memory."
    )
    raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)


def _batch_tokens(recipe: Recipe, extent: Extent) -> int:
    """Return the tokens of the batch that is tried: the run's, where that takes no long wait."""
    if recipe.device.startswith("cuda") and recipe.calibration.batch_tokens is None:
        return _CUDA_TOKENS
    mean = extent.num_tokens // max(1, extent.num_batches)
    return mean if recipe.device.startswith("cuda") else min(mean, _CPU_MOST)


class _Trial:
    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        inventory: Inventory,
        plan: QuantPlan,
        on_weights: OnWeights,
    ) -> None:
        self._recipe, self._source, self._inventory = recipe, source, inventory
        self._plan, self._on_weights = plan, on_weights

    def run(self, sizes: list[int], length: int) -> Trial:
        """Run batches of `sizes` samples, by turns."""
        recipe, source = self._recipe, self._source
        vocabulary, device = vocabulary_size(source), recipe.device
        batches_BT = [_random_ids(size, length, vocabulary) for size in sizes * _REPEATS]
        ranges = WeightRanges(source, self._plan, device=device)
        budget = Budget(recipe.memory, device)
        budget.begin()

        def show(weights: Mapping[str, Tensor]) -> None:
            self._on_weights(weights, ranges.see(weights))

        started = time.perf_counter()
        streamed = StreamedModel(
            source,
            self._inventory,
            device=device,
            dtype=stored_dtype(source),
            one_of_each=True,
        )
        observer = Observer(self._inventory, self._plan)
        way = Way(device, recipe.calibration.experts, budget)
        prepared, trials = try_layers(streamed, batches_BT, observer, way, show)
        kinds = {same[0]: len(same) for same in streamed.kinds}
        return Trial(
            start_s=prepared - started + sum(map(_warm_up_s, trials.values())),
            read_rate=streamed.bytes_read / max(streamed.read_s, 1e-9),
            layers=tuple(
                _cost(trial, kinds[index], streamed.num_bytes(index), [n * length for n in sizes])
                for index, trial in trials.items()
            ),
        )


def _random_ids(size: int, length: int, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (size, length), generator=generator)


def _warm_up_s(trial: LayerTrial) -> float:
    """Return how much longer the first times took."""
    runs = (trial.shown_s, trial.ran_s[0::2], trial.ran_s[1::2])
    return sum(times[0] - min(times) for times in runs if times)


def _cost(trial: LayerTrial, num_layers: int, num_bytes: int, tokens: Sequence[int]) -> LayerCost:
    """Draw a line through the times of a smaller and a larger batch; the first warm up."""
    call_s = token_s = 0.0
    if tokens:
        few, many = tokens
        few_s, many_s = median(trial.ran_s[2::2]), median(trial.ran_s[3::2])
        if many > few:
            token_s = max(0.0, many_s - few_s) / (many - few)
        call_s = max(0.0, many_s - many * token_s)
    return LayerCost(num_layers, num_bytes, min(trial.shown_s), call_s, token_s)
