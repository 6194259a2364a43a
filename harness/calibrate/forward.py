"""Run batches through the model: all layers at once, or one decoder layer over all batches.

Layer by layer, only one layer's weights are on the device, beside the hidden states of all
batches. That needs no knowledge of the family: the model's own forward runs once with its layers
replaced by stubs that record how they are called, which gives every layer its own positions,
masks and flags; then the real layers run one after another on the recorded calls. What is
measured equals the ordinary run of the same batches to the bit.

Shapes: B samples of a batch, T tokens of a sample, H hidden size.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.calibrate.memory import Activations, Budget
from harness.calibrate.observer import Observer
from harness.models import (
    StreamedModel,
    experts_run,
    fused_convolutions,
    tap_attention,
    tap_linears,
)
from harness.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger("harness.calibrate")
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""cuDNN's, which torch would choose on an H200, compiles for a second or two beforehand."""

OnLayer = Callable[[Mapping[str, Tensor]], None]
"""Takes the weights of a decoder layer, by the model's names, while they are in memory."""


class Way(NamedTuple):
    """How a model runs."""

    device: str
    experts: str
    """`eager` or `grouped`."""
    budget: Budget
    ranks: Ranks = ALONE
    """Each shows its own layers to whoever looks at weights."""


def run_whole(
    model: "PreTrainedModel", batches_BT: Sequence[Tensor], observer: Observer, way: Way
) -> None:
    """Run the model, all of which is on the device, over all batches."""
    with_logits = observer.needs_logits(model)
    num_samples = sum(len(batch_BT) for batch_BT in batches_BT)
    num_done = 0
    with _calibrating(model, observer, way), _seen(model, observer, way.experts):
        for batch_BT in batches_BT:
            _forward(model, batch_BT.to(way.device), with_logits=with_logits)
            tenth = num_done * 10 // num_samples
            num_done += len(batch_BT)
            if num_done * 10 // num_samples > tenth:
                _log.info("calibrate: %d of %d samples", num_done, num_samples)


def run_layerwise(
    streamed: StreamedModel,
    batches_BT: Sequence[Tensor],
    observer: Observer,
    way: Way,
    *,
    on_layer: OnLayer | None = None,
) -> None:
    """Run a model layer by layer over all batches; each layer is on the device in its turn alone.

    It is shown to `on_layer` before it runs.
    """
    model, layers, clock = streamed.model, streamed.layers, _Clock(way.device)
    with streamed, _calibrating(model, observer, way):
        stubs, activations = _recorded(streamed, batches_BT, way)
        clock.lap("prepared")
        for index, stub in enumerate(stubs):
            with streamed.resident(index) as layer:
                clock.lap("waited for weights")
                if on_layer is not None and way.ranks.owns(index):
                    on_layer(_weights(streamed, index, layer))
                clock.lap("quantized")
                layers[index] = layer
                with _seen(model, observer, way.experts):
                    for batch, call in enumerate(stub.calls):
                        hidden_BTH = _run_layer(layer, activations.take(batch), call)
                        activations.put(batch, hidden_BTH)
                layers[index] = stub
                clock.lap("ran")
            way.budget.check_host()
            _log.info("calibrate: %d of %d layers", index + 1, len(stubs))
        _log.info("calibrate: %s", clock)
        _log_reading(streamed)
        if not observer.is_complete:
            layers[-1] = _Replay(activations)
            with _seen(model, observer, way.experts):
                for batch_BT in batches_BT:
                    _forward(model, batch_BT.to(way.device), with_logits=True)


def show_layers(streamed: StreamedModel, way: Way, on_layer: OnLayer) -> None:
    """Show each decoder layer to `on_layer` and run none."""
    with streamed, torch.inference_mode():
        for index in streamed.order:
            with streamed.resident(index) as layer:
                if way.ranks.owns(index):
                    on_layer(_weights(streamed, index, layer))
            way.budget.check_host()
        _log_reading(streamed)


def warm_up(streamed: StreamedModel, batches_BT: Sequence[Tensor], way: Way) -> None:
    """Run batches through all layers that are asked for, and keep nothing.

    Kernels that try variants of themselves do so here, and keep which is fastest on the disk.
    """
    with streamed, _running(streamed.model, way):
        stubs, activations = _recorded(streamed, batches_BT, way)
        for index in streamed.order:
            with streamed.resident(index) as layer:
                for batch, call in enumerate(stubs[index].calls):
                    activations.put(batch, _run_layer(layer, activations.take(batch), call))
        _wait_for(torch.device(way.device))


_SHOWN = 2


class LayerTimes(NamedTuple):
    """What one decoder layer took, in seconds."""

    shown_s: tuple[float, ...]
    """Each time; the first one compiles what is compiled."""
    ran_s: tuple[float, ...]
    """For each batch, in their order."""


def time_layers(
    streamed: StreamedModel,
    batches_BT: Sequence[Tensor],
    observer: Observer,
    way: Way,
    on_layer: OnLayer,
) -> tuple[float, Mapping[int, LayerTimes]]:
    """Time the layers that may be asked for, as `run_layerwise` would run them.

    Returns:
        When the first layer's turn came, by time.perf_counter; and the times by layer.
    """
    model, layers, clock = streamed.model, streamed.layers, _Clock(way.device)
    times: dict[int, LayerTimes] = {}
    with streamed, _calibrating(model, observer, way):
        stubs, activations = _recorded(streamed, batches_BT, way)
        clock.lap()
        prepared = time.perf_counter()
        for index in streamed.order:
            with streamed.resident(index) as layer:
                clock.lap()
                shown_s, ran_s = [], []
                for _ in range(_SHOWN):
                    on_layer(_weights(streamed, index, layer))
                    shown_s.append(clock.lap())
                layers[index] = layer
                with _seen(model, observer, way.experts):
                    for batch, call in enumerate(stubs[index].calls):
                        hidden_BTH = _run_layer(layer, activations.take(batch), call)
                        activations.put(batch, hidden_BTH)
                        ran_s.append(clock.lap())
                layers[index] = stubs[index]
            times[index] = LayerTimes(tuple(shown_s), tuple(ran_s))
    return prepared, times


def _recorded(
    streamed: StreamedModel, batches_BT: Sequence[Tensor], way: Way
) -> "tuple[list[_Recorder], Activations]":
    """Run the model without its layers; return how each is called, and the first's inputs."""
    activations = Activations(way.budget, way.device)
    keepers = [activations.append, *[None] * (len(streamed) - 1)]
    stubs = [_Recorder(keep) for keep in keepers]
    for index, stub in enumerate(stubs):
        streamed.layers[index] = stub
    for batch_BT in batches_BT:
        _forward(streamed.model, batch_BT.to(way.device), with_logits=False)
        way.budget.check_host()
    return stubs, activations


def _weights(streamed: StreamedModel, index: int, layer: nn.Module) -> Mapping[str, Tensor]:
    """Return a layer's weights by the model's names."""
    weights: Mapping[str, Tensor] = layer.state_dict(keep_vars=True, prefix=streamed.prefix(index))
    return weights


def _log_reading(streamed: StreamedModel) -> None:
    gigabytes, seconds = streamed.bytes_read / 1e9, streamed.read_s
    _log.info("calibrate: read %.2f GB of decoder layers in %.2f s", gigabytes, seconds)


@contextmanager
def first_layer_alone(streamed: StreamedModel, way: Way) -> Iterator[Callable[[Tensor], None]]:
    """Give a function that runs ids [B, T] through the first decoder layer and waits for it."""
    model, layers = streamed.model, streamed.layers

    def run(ids_BT: Tensor) -> None:
        _forward(model, ids_BT.to(way.device), with_logits=False)
        _wait_for(torch.device(way.device))

    with streamed, _running(model, way):
        for index in range(len(layers)):
            layers[index] = _Pass()
        with streamed.resident(0) as layer:
            layers[0] = layer
            yield run


class _Pass(nn.Module):
    """Stands in for a decoder layer that is left out."""

    def forward(self, hidden_states: Tensor, *arguments: object, **options: object) -> Tensor:
        del arguments, options
        return hidden_states


def _wait_for(device: torch.device) -> None:
    """Wait until what was queued on a GPU is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


class _Clock:
    """Adds up the seconds of each part; what was queued on a GPU counts for the part that did."""

    def __init__(self, device: str) -> None:
        self._device, self._last = torch.device(device), time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, part: str = "") -> float:
        """Count the time since the last lap for `part`, and return it."""
        _wait_for(self._device)
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds
        return seconds

    def __str__(self) -> str:
        """Return all parts, such as `ran 3.21 s, quantized 0.52 s`."""
        return ", ".join(f"{part} {seconds:.2f} s" for part, seconds in self._seconds.items())


class _Call(NamedTuple):
    """How a model called one of its layers, besides the hidden states."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


class _Recorder(nn.Module):
    """Stands in for a decoder layer: keeps its calls and returns the hidden states unchanged."""

    def __init__(self, keep: Callable[[Tensor], None] | None) -> None:
        """Hand the hidden states to `keep`; the first layer's alone: others' are made by layers."""
        super().__init__()
        self.calls: list[_Call] = []
        self._keep = keep

    def forward(self, hidden_states: Tensor, *arguments: object, **options: object) -> Tensor:
        self.calls.append(_Call(arguments=arguments, options=options))
        if self._keep is not None:
            self._keep(hidden_states)
        return hidden_states


class _Replay(nn.Module):
    """Stands in for the last decoder layer: returns what it returned for each batch."""

    def __init__(self, outputs_BTH: Iterable[Tensor]) -> None:
        super().__init__()
        self._outputs_BTH = iter(outputs_BTH)

    def forward(self, *arguments: object, **options: object) -> Tensor:
        del arguments, options
        return next(self._outputs_BTH)


@contextmanager
def _calibrating(model: "PreTrainedModel", observer: Observer, way: Way) -> Iterator[None]:
    """Run the model and, where the plan needs it, show keys and values."""
    shown = tap_attention(model, observer.see_kv) if observer.needs_kv else nullcontext()
    with _running(model, way), shown:
        yield


@contextmanager
def _running(model: "PreTrainedModel", way: Way) -> Iterator[None]:
    """Run experts as asked, and the rest by the fastest kernels at hand."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(experts_run(model, way.experts))
        if way.device.startswith("cuda"):
            stack.enter_context(sdpa_kernel(_ATTENTION))
            stack.enter_context(fused_convolutions(model))
        yield


def _seen(
    model: "PreTrainedModel", observer: Observer, experts: str
) -> AbstractContextManager[None]:
    """Show the observer all inputs; experts that were to run one by one count only if they do."""
    on_grouped = observer.see_grouped if experts == "grouped" else None
    return tap_linears(model, observer.see_input, on_grouped)


def _forward(model: "PreTrainedModel", batch_BT: Tensor, *, with_logits: bool) -> None:
    """Run the model, and its output layer only where that is needed.

    Logits of all positions of a large vocabulary outweigh all other activations; those of the last
    position alone took a CPU longer than a decoder layer did.
    """
    whole: nn.Module = model if with_logits else model.base_model
    whole(input_ids=batch_BT, use_cache=False)


def _run_layer(layer: nn.Module, hidden_BTH: Tensor, call: _Call) -> Tensor:
    """Run one layer on the output of the one before; some families return a tuple."""
    output = layer(hidden_BTH, *call.arguments, **call.options)
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
