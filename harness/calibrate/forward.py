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
from collections.abc import Generator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.calibrate.memory import Activations, Budget
from harness.calibrate.observer import Observer
from harness.calibrate.stubs import (
    Call,
    CallRecorder,
    EnoughSeen,
    Replay,
    Returned,
    Trial,
    Watched,
    naming_what_stopped,
    record_calls,
    refuse_other_order,
)
from harness.models import (
    OnKv,
    ResidentLayer,
    StreamedModel,
    answering,
    experts_run,
    fused_convolutions,
    fused_norms,
    mixed_types_run,
    tap_attention,
    tap_linears,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger("harness.calibrate")
_TRIED_TOKENS = 8
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""cuDNN's, which torch would choose on an H200, compiles for a second or two beforehand."""


class RunOptions(NamedTuple):
    """How a model runs."""

    device: str
    experts: str
    """`eager` or `grouped`."""
    budget: Budget
    otherwise: str = "Type --whole."
    """What helps where a model does not run its layers one after another."""


def run_whole(
    model: "PreTrainedModel", batches_BT: Sequence[Tensor], observer: Observer, options: RunOptions
) -> None:
    """Run the model, all of which is on the device, over all batches."""
    with_logits = observer.needs_logits(model)
    num_samples = sum(len(batch_BT) for batch_BT in batches_BT)
    num_done = 0
    on_kv = observer.see_kv if observer.needs_kv else None
    with _running(model, options, on_kv), _seen(model, observer, options.experts):
        for batch_BT in batches_BT:
            _forward(model, batch_BT.to(options.device), with_logits=with_logits)
            tenth = num_done * 10 // num_samples
            num_done += len(batch_BT)
            if num_done * 10 // num_samples > tenth:
                _log.info("calibrate: %d of %d samples", num_done, num_samples)


class LayerwiseRun:
    """A run over all batches in which one decoder layer after the other is on the device.

    Whoever takes a layer from `layers` decides when it runs, and what is done with its weights.
    """

    def __init__(
        self,
        streamed: StreamedModel,
        batches_BT: Sequence[Tensor],
        options: RunOptions,
        observer: Observer | None = None,
    ) -> None:
        """Read and run nothing yet; without an observer nothing is measured."""
        self._streamed, self._model, self._layers = streamed, streamed.model, streamed.layers
        self._batches_BT, self._options, self._observer = batches_BT, options, observer
        self._activations = Activations(options.budget, options.device)
        self._stubs: list[CallRecorder] = []
        self._returned: Returned | None = None
        """How this family's layers return; None until one was run."""
        self._is_trying = False
        self._is_of_all_layers = len(streamed.order) == len(streamed)
        self.clock = Clock(options.device)
        self.prepared_at = 0.0
        """When the first layer's turn came, by time.perf_counter."""
        self.tried_s = 0.0
        """Seconds of the few ids that went through it before; a GPU's kernels are compiled then."""

    def layers(self) -> Generator[ResidentLayer, None, None]:
        """Yield each decoder layer while its weights are in memory; the next one is read meanwhile.

        Raises:
            ModelError: a tensor cannot be read.
            StageError: the memory is not enough.
        """
        streamed = self._streamed
        with streamed, _running(self._model, self._options, self._on_kv()):
            self.clock.lap("prepared")
            for number, index in enumerate(streamed.order, start=1):
                with streamed.resident(index) as layer:
                    self.clock.lap("waited for weights")
                    if number == 1:
                        self._record_calls(layer)
                        self.clock.lap("prepared")
                        self.prepared_at = time.perf_counter()
                    yield layer
                    self.clock.lap("quantized")  # by who runs a layer first and quantizes then
                self._options.budget.check_host()
                if self._is_of_all_layers:
                    _log.info("calibrate: %d of %d layers", number, len(streamed))
            if self._is_of_all_layers:
                gigabytes, seconds = streamed.bytes_read / 1e9, streamed.read_s
                _log.info("calibrate: %s", self.clock)
                _log.info("calibrate: read %.2f GB of decoder layers in %.2f s", gigabytes, seconds)
                self._run_the_rest()

    def run(self, layer: ResidentLayer) -> None:
        """Run a layer, in its turn, over all batches."""
        self.clock.lap("quantized")
        for _ in self.run_each(layer):
            pass
        self.clock.lap("ran")

    def run_each(self, layer: ResidentLayer) -> Generator[None, None, None]:
        """Do the same and yield after each batch; who takes no more has run no more."""
        stub, self._layers[layer.number] = self._stubs[layer.number], layer.module
        if self._observer is not None:
            self._observer.moments.clear()
        try:
            with _seen(self._model, self._observer, self._options.experts):
                for batch, call in enumerate(stub.calls):
                    hidden_BTH = _run_layer(layer.module, self._activations.take(batch), call)
                    self._activations.put(batch, hidden_BTH)
                    yield
        finally:
            self._layers[layer.number] = stub

    def inputs(self) -> list[Tensor]:
        """Return each batch's hidden states: what the layer takes that is to run next."""
        return list(self._activations)

    def copied_inputs(self) -> Activations:
        """Return the same, held where there is room for them, to be changed by themselves."""
        return self._activations.copied()

    def watch_shared(self) -> Mapping[str, Sequence[Watched]]:
        """Watch what the model hands all its layers and they can add to, by name; once recorded."""
        known: dict[int, Watched] = {}
        found: dict[str, list[Watched]] = {}
        for call in (call for stub in self._stubs for call in stub.calls):
            for name, one in call.options.items():
                if isinstance(one, MutableMapping):
                    if id(one) not in known:
                        known[id(one)] = Watched(one)
                        found.setdefault(name, []).append(known[id(one)])
                    call.options[name] = known[id(one)]
        return found

    def run_on(self, layer: ResidentLayer, batch: int, hidden_BTH: Tensor) -> Tensor:
        """Run a layer, in its turn, on other hidden states than the batch's; none are measured."""
        self._is_trying = True
        try:
            return _run_layer(layer.module, hidden_BTH, self._stubs[layer.number].calls[batch])
        finally:
            self._is_trying = False

    def logits(self, ids_BT: Tensor, hidden_BTH: Tensor) -> Tensor:
        """Run what is behind the last layer, while that is in memory, on what it returned."""
        last, stub = self._layers[-1], self._stubs[-1]
        self._layers[-1] = Replay(stub, [hidden_BTH])
        try:
            with naming_what_stopped(self._model):
                logits: Tensor = answering(self._model)(input_ids=ids_BT, use_cache=False).logits
        finally:
            self._layers[-1] = last
            for one in self._stubs:  # which each forward calls once more
                del one.calls[len(self._batches_BT) :]
        return logits

    def on_first_batch(self, layer: ResidentLayer) -> Tensor:
        """Run a layer, in its turn, on the first batch, which is run again with all others."""
        call, self._is_trying = self._stubs[layer.number].calls[0], True
        try:
            return _run_layer(layer.module, self._activations.first(), call)
        finally:
            self._is_trying = False

    def try_alone(self, layer: ResidentLayer, ids_BT: Tensor) -> None:
        """Run ids through this layer and no other, and wait for it."""
        ids_BT = ids_BT.to(self._options.device)
        self._see_how_it_returns(layer, ids_BT)
        self._layers[layer.number] = layer.module
        _forward(self._model, ids_BT, with_logits=False)
        self.clock.lap()
        for stub in self._stubs:
            stub.calls.clear()

    def _on_kv(self) -> OnKv | None:
        """Return what keys and values are shown to, where the plan needs them."""
        observer = self._observer
        if observer is None or not observer.needs_kv:
            return None

        def see(name: str, k: Tensor, v: Tensor) -> None:
            if not self._is_trying:
                observer.see_kv(name, k, v)

        return see

    def _record_calls(self, first: ResidentLayer) -> None:
        """Run the model without its layers: keep how each is called, and the first's inputs."""
        self._stubs = record_calls(self._layers, self._activations.append)
        for number, batch_BT in enumerate(self._batches_BT, start=1):
            ids_BT = batch_BT.to(self._options.device)
            self._see_how_it_returns(first, ids_BT)
            _forward(self._model, ids_BT, with_logits=False)
            refuse_other_order(self._model, self._stubs, number, self._options.otherwise)
            self._options.budget.check_host()

    def _see_how_it_returns(self, layer: ResidentLayer, ids_BT: Tensor) -> None:
        """Run a few ids through the first layer, once, so that stubs return as it does."""
        if self._returned is not None:
            return
        stub, trial = self._layers[layer.number], Trial(layer.module)
        self._layers[layer.number], self._is_trying = trial, True
        started = time.perf_counter()
        with suppress(EnoughSeen):
            _forward(self._model, ids_BT[:1, :_TRIED_TOKENS], with_logits=False)
        self.tried_s = time.perf_counter() - started
        self._layers[layer.number], self._is_trying = stub, False
        self._returned = trial.returned
        for one in self._stubs:
            one.returned = trial.returned

    def _run_the_rest(self) -> None:
        """Run what is behind the last decoder layer, where the plan measures it."""
        if self._observer is None or self._observer.is_complete:
            return
        self._layers[-1] = Replay(self._stubs[-1], self._activations)
        with _seen(self._model, self._observer, self._options.experts):
            for batch_BT in self._batches_BT:
                _forward(self._model, batch_BT.to(self._options.device), with_logits=True)


def wait_for(device: torch.device) -> None:
    """Wait until what was queued on a GPU is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


class Clock:
    """Adds up the seconds of each part; what was queued on a GPU counts for the part that did."""

    def __init__(self, device: str) -> None:
        """Begin to count; `device` is waited for."""
        self._device, self._last = torch.device(device), time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, part: str = "") -> float:
        """Count the time since the last lap for `part`, and return it."""
        wait_for(self._device)
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds
        return seconds

    def __str__(self) -> str:
        """Return all parts, such as `ran 3.21 s, quantized 0.52 s`."""
        return ", ".join(f"{part} {seconds:.2f} s" for part, seconds in self._seconds.items())


@contextmanager
def _running(
    model: "PreTrainedModel", options: RunOptions, on_kv: OnKv | None = None
) -> Iterator[None]:
    """Run experts as asked, and the rest by the fastest kernels at hand; show keys and values."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(experts_run(model, options.experts))
        stack.enter_context(mixed_types_run(model))
        if options.device.startswith("cuda"):
            stack.enter_context(sdpa_kernel(_ATTENTION))
            stack.enter_context(fused_convolutions(model))
            stack.enter_context(fused_norms(model))
        if on_kv is not None:
            stack.enter_context(tap_attention(model, on_kv))
        yield


def _seen(
    model: "PreTrainedModel", observer: Observer | None, experts: str
) -> AbstractContextManager[None]:
    """Show the observer all inputs; experts that were to run one by one count only if they do."""
    if observer is None:
        return nullcontext()
    on_grouped = observer.see_grouped if experts == "grouped" else None
    return tap_linears(model, observer.see_input, on_grouped)


def _forward(model: "PreTrainedModel", batch_BT: Tensor, *, with_logits: bool) -> None:
    """Run the model, and its output layer only where that is needed.

    Logits of all positions of a large vocabulary outweigh all other activations; those of the last
    position alone took a CPU longer than a decoder layer did.
    """
    text = answering(model)
    whole: nn.Module = text if with_logits else text.base_model
    with naming_what_stopped(model):
        whole(input_ids=batch_BT, use_cache=False)


def _run_layer(layer: nn.Module, hidden_BTH: Tensor, call: Call) -> Tensor:
    """Run one layer on the output of the one before; some families return a tuple."""
    with naming_what_stopped(layer):
        output = layer(hidden_BTH, *call.arguments, **call.options)
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
