"""One pass over a model's layers, first to last, beside which rounded variants run along.

The layers are read once, as calibration reads them. A variant leaves the unquantized stream where
its first unit is rounded, and runs on through all later layers; behind the last one the output of
each is held against the unquantized one. So each variant's divergence is that of the whole model
with just these units rounded: nothing is estimated.

One variant runs along in which nothing is rounded. It must come out as the unquantized stream did;
where it does not, layers hand something on beside the hidden states, and no number here would hold.

Shapes: B texts of a batch, T tokens of a text, H hidden size, V vocabulary.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import stdev
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import LEFT, Inventory, Recipe
from harness.calibrate.forward import LayerwiseRun, RunOptions
from harness.calibrate.memory import Budget
from harness.calibrate.moments import bytes_of_moments
from harness.calibrate.observer import Observer
from harness.calibrate.stubs import Watched
from harness.errors import ModelError, ReasonCode, RejectedError, StageError
from harness.models import ResidentLayer, Source, StreamedModel, is_out_of_memory, stored_dtype
from harness.tuning.rounding import Rounding, Seen
from harness.tuning.streams import Demand, Streams, streams_for
from harness.tuning.units import Space, Unit

_log = logging.getLogger("harness.tune")
_BY_HAND = "Such a model cannot be tuned: choose a recipe by hand."
_SAME = 1e-4
"""Nats a token up to which the same arithmetic may differ."""

Variant = Mapping[str, str]
"""The format of each unit that is rounded."""


class Divergence(NamedTuple):
    """Of a variant's output from the unquantized one, in nats a token."""

    kld: float
    stderr: float
    """Over texts."""


class Tuned(NamedTuple):
    """A model whose recipe is tuned, and where the pass runs."""

    recipe: Recipe
    """Its device, its memory, and how experts run."""
    source: Source
    inventory: Inventory
    folder: Path
    """For hidden states that have no room in memory."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the type that the pass computes in.

        The CPU is no faster in the model's own type, whose rounding hides small divergences.
        """
        is_gpu = self.recipe.device.startswith("cuda")
        return stored_dtype(self.source) if is_gpu else torch.float32

    def streamed(self) -> StreamedModel:
        """Build the modules.

        Raises:
            ModelError: the model has no list of decoder layers.
        """
        return StreamedModel(
            self.source, self.inventory, device=self.recipe.device, dtype=self.dtype
        )

    def demand(self, num_variants: int, num_tokens: int) -> Demand:
        """Return what streams will take, that of nothing rounded included."""
        text = self.source.config.get("text_config", self.source.config)
        width = text.get("hidden_size") if isinstance(text, Mapping) else None
        if not isinstance(width, int):
            message = (
                f"the configuration of '{self.source.name}' does not say how wide its layers are "
                "(hidden_size), so that nobody knows what the pass takes. Add it there."
            )
            raise ModelError(message)
        return Demand(num_variants + 1, num_tokens, width, self.dtype)


def divergences(
    tuned: Tuned, space: Space, batches_BT: Sequence[Tensor], variants: Sequence[Variant]
) -> tuple[list[Divergence], float]:
    """Run texts through the model and its variants; return how far each parts, and the floor.

    Args:
        tuned: the model.
        space: what its variants are made of.
        batches_BT: token ids; two texts at least.
        variants: each with at least one unit.

    Raises:
        CorruptWeightError: a weight holds NaN or infinity.
        ModelError: the model does not run its layers one after another, or they hand on more than
            hidden states.
        PrerequisiteError: there is no room for the streams.
        StageError: the memory is not enough.
    """
    budget = Budget(tuned.recipe.memory, tuned.recipe.device)
    num_tokens = sum(batch_BT.numel() for batch_BT in batches_BT)
    demand = tuned.demand(len(variants), num_tokens)
    shapes = [(*batch_BT.shape, demand.width) for batch_BT in batches_BT]
    host = tuned.recipe.memory.host_bytes
    try:
        with budget.limited(), streams_for(demand, shapes, tuned.folder, host) as streams:
            budget.check_moments(bytes_of_moments(space.measured()))
            passing = _Pass(tuned, space, [{}, *variants], streams)
            floor, *found = passing.run(batches_BT, budget)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            f"tuning ran out of memory on '{tuned.recipe.device}'. Type fewer --tokens than "
            f"{num_tokens}."
        )
        raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY) from error
    if not floor.kld <= _SAME:
        message = (
            f"a stream of '{tuned.recipe.model}' in which nothing is rounded parts from itself by "
            f"{floor.kld:.2g} nats a token: its layers hand on more than hidden states. {_BY_HAND}"
        )
        raise StageError(message)
    return found, floor.kld


class _Pass:
    def __init__(
        self, tuned: Tuned, space: Space, variants: Sequence[Variant], streams: Streams
    ) -> None:
        self._tuned, self._variants, self._streams = tuned, variants, streams
        self._plan = space.measured()
        self._rounding = Rounding(tuned.source, self._plan, tuned.recipe.device)
        self._units: dict[int, list[Unit]] = defaultdict(list)
        for unit in space.units:
            self._units[unit.layer].append(unit)
        self._running: set[int] = set()
        """Streams that have left the unquantized one."""
        self._ended: set[int] = set()
        """Streams whose variant cannot be made: no scale can be made of what its input showed."""

    def run(self, batches_BT: Sequence[Tensor], budget: Budget) -> list[Divergence]:
        recipe = self._tuned.recipe
        options = RunOptions(recipe.device, recipe.calibration.experts, budget, _BY_HAND)
        observer = Observer(self._tuned.inventory, self._plan)
        streamed = self._tuned.streamed()
        run = LayerwiseRun(streamed, batches_BT, options, observer)
        shared: Mapping[str, Sequence[Watched]] = {}
        with closing(run.layers()) as layers:
            for layer in layers:
                started, before_BTH = time.perf_counter(), run.inputs()
                self._check_hidden(batches_BT, before_BTH)
                shared = shared or run.watch_shared()
                run.run(layer)
                self._check_shared(shared)
                self._run_variants(run, layer, before_BTH, observer)
                spent, count = time.perf_counter() - started, len(self._running)
                number = layer.number + 1
                _log.info("tune: layer %d, %d streams, %.1f s", number, count, spent)
                if number == len(streamed):
                    return self._outcome(run, batches_BT)
        raise AssertionError  # a model has a last layer

    def _check_hidden(self, batches_BT: Sequence[Tensor], hidden: Sequence[Tensor]) -> None:
        """Refuse hidden states that are not one vector a token."""
        width = self._tuned.demand(0, 0).width
        for batch_BT, one in zip(batches_BT, hidden, strict=True):
            if one.shape != (*batch_BT.shape, width):
                message = (
                    f"layers of '{self._tuned.recipe.model}' hand on {list(one.shape)} for texts "
                    f"of {list(batch_BT.shape)} tokens, not {width} numbers a token. {_BY_HAND}"
                )
                raise ModelError(message)

    def _check_shared(self, shared: Mapping[str, Sequence[Watched]]) -> None:
        """Refuse layers that read from each other what one stream would overwrite for all."""
        for name, each in shared.items():
            if any(one.is_read for one in each):
                message = (
                    f"layers of '{self._tuned.recipe.model}' hand on '{name}' beside the hidden "
                    f"states. {_BY_HAND}"
                )
                raise ModelError(message)

    def _run_variants(
        self,
        run: LayerwiseRun,
        layer: ResidentLayer,
        before_BTH: Sequence[Tensor],
        observer: Observer,
    ) -> None:
        """Run a layer on all streams: on those alike in it one after another."""
        units = self._units[layer.number]
        names = {one.input_quantizer for unit in units for one in unit.linears}
        seen = Seen(observer.largest(names), observer.moments.of)
        for chosen, streams in self._alike(units, is_first=layer.number == 0):
            options = [
                unit.options[name] for unit, name in zip(units, chosen, strict=True) if name != LEFT
            ]
            with ExitStack() as rounded:
                try:
                    rounded.enter_context(self._rounding.of(layer, options, seen))
                except RejectedError as error:
                    _log.info("tune: not among the choices: %s", error)
                    self._ended.update(streams)
                    continue
                for stream in streams:
                    for batch, own_BTH in enumerate(before_BTH):
                        hidden_BTH = own_BTH.clone()  # a layer may add to what it is given
                        if stream in self._running:
                            held_BTH = self._streams.get(stream, batch)
                            hidden_BTH = held_BTH.to(own_BTH.device, copy=True)
                        returned_BTH = run.run_on(layer, batch, hidden_BTH)
                        self._streams.put(stream, batch, returned_BTH)
                    self._running.add(stream)

    def _alike(
        self, units: Sequence[Unit], *, is_first: bool
    ) -> Iterator[tuple[tuple[str, ...], list[int]]]:
        """Yield what becomes of a layer's units, with the streams that it becomes so in."""
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for stream, variant in enumerate(self._variants):
            chosen = tuple(variant.get(unit.name, LEFT) for unit in units)
            begins = any(name != LEFT for name in chosen) or (is_first and not variant)
            if stream in self._ended:
                continue
            if begins or stream in self._running:
                groups[chosen].append(stream)
        yield from groups.items()

    def _outcome(self, run: LayerwiseRun, batches_BT: Sequence[Tensor]) -> list[Divergence]:
        """Hold the output of each stream against the unquantized one, text by text."""
        started = time.perf_counter()
        klds: list[list[Tensor]] = [[] for _ in self._variants]
        lengths: list[int] = []
        for batch, own_BTH in enumerate(run.inputs()):
            for row, ids_T in enumerate(batches_BT[batch]):
                part, ids_1T = slice(row, row + 1), ids_T[None].to(own_BTH.device)
                wanted_TV = _log_probabilities(run, ids_1T, own_BTH[part])
                lengths.append(len(ids_T))
                for stream, found in enumerate(klds):
                    if stream in self._ended:
                        found.append(torch.tensor(math.inf))
                        continue
                    hidden_1TH = self._streams.get(stream, batch)[part].to(own_BTH.device)
                    found.append(_kld(wanted_TV, _log_probabilities(run, ids_1T, hidden_1TH)))
        _log.info("tune: outputs of all streams, %.1f s", time.perf_counter() - started)
        return [_over_texts([float(one) for one in each], lengths) for each in klds]


def _log_probabilities(run: LayerwiseRun, ids_1T: Tensor, hidden_1TH: Tensor) -> Tensor:
    return run.logits(ids_1T, hidden_1TH)[0].float().log_softmax(-1)


def _kld(wanted_TV: Tensor, found_TV: Tensor) -> Tensor:
    """Return the mean divergence over tokens; what is impossible for both counts nothing."""
    likely_TV = wanted_TV.exp()
    terms_TV = torch.where(likely_TV > 0, likely_TV * (wanted_TV - found_TV), 0.0)
    return terms_TV.sum(-1).mean()


def _over_texts(klds: Sequence[float], lengths: Sequence[int]) -> Divergence:
    """Return the mean over tokens, with its error over texts; infinite where one is not finite."""
    if not all(map(math.isfinite, klds)):
        return Divergence(math.inf, math.inf)
    pairs = zip(klds, lengths, strict=True)
    mean = math.fsum(kld * length for kld, length in pairs) / sum(lengths)
    return Divergence(mean, stdev(klds) / len(klds) ** 0.5)
