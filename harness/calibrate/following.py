"""A second stream of hidden states, which runs through the quantized layers.

Beside the unquantized model, whose ranges and outputs are wanted, runs what it becomes once it is
quantized. The weights of a layer are quantized in the order in which they are used: those that use
one input are shown it, beside that of the unquantized model for the same token, when all before
them in the layer compute as they are quantized. Experts get the tokens that they get in the
unquantized model, while that is looked at; the whole quantized layer routes by itself.

Shapes: N rows (tokens), E experts.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from harness.calibrate.memory import Activations
from harness.calibrate.moments import MomentCollector
from harness.calibrate.stubs import EnoughSeen, Watched
from harness.errors import ModelError
from harness.models import KeptRouting, ResidentLayer, tap_linears

if TYPE_CHECKING:
    from harness.calibrate.forward import LayerwiseRun

_STACK = 3


class Rounding(Protocol):
    """What engines round inputs to; None where they stay as they are."""

    def rounded(self, parameter: str, expert: int | None, input_NI: Tensor) -> Tensor | None:
        """Return what the input of a weight becomes."""

    def rounded_together(self, parameter: str, ends_E: Tensor, input_NI: Tensor) -> Tensor | None:
        """Return the same of all experts' rows, which end at `ends_E`."""


class Turn(NamedTuple):
    """Weights that use one input, and the layer as far as it is quantized before them."""

    parameters: frozenset[str]
    layer: ResidentLayer
    """A twin of the layer, which holds what is quantized as engines compute with it."""
    quantized: frozenset[str]
    """Its parameters whose inputs are rounded."""
    rounding: Rounding


class _Input(NamedTuple):
    """One call of a weight."""

    parameter: str
    expert: int | None
    ends_E: Tensor | None
    """Where each expert's rows end, of all in one product."""
    input_NI: Tensor

    def is_same_call(self, other: "_Input") -> bool:
        """Return whether another is of this weight, with rows of the same tokens."""
        if (self.parameter, self.expert) != (other.parameter, other.expert):
            return False
        if self.input_NI.shape != other.input_NI.shape:
            return False
        if self.ends_E is None or other.ends_E is None:
            return self.ends_E is other.ends_E
        return torch.equal(self.ends_E, other.ends_E)

    def rounded(self, rounding: Rounding) -> Tensor:
        """Return the rows as engines round them."""
        if self.ends_E is None:
            found_NI = rounding.rounded(self.parameter, self.expert, self.input_NI)
        else:
            found_NI = rounding.rounded_together(self.parameter, self.ends_E, self.input_NI)
        return self.input_NI if found_NI is None else found_NI.to(self.input_NI.dtype)


OnCall = Callable[[_Input], Tensor | None]
"""Takes a call and returns what replaces its input."""


class Following:
    """The hidden states behind quantized layers, beside those of the unquantized model."""

    def __init__(self, run: "LayerwiseRun", moments: MomentCollector) -> None:
        """Take the run of the unquantized model, and what sums up inputs."""
        self._run, self._moments = run, moments
        self._own: Activations | None = None
        self._before: Activations | None = None
        """What the unquantized layer ran on that is to be quantized."""
        self._shared: Mapping[str, Sequence[Watched]] = {}

    def keep(self) -> None:
        """Remember the hidden states of the unquantized model before a layer runs on them."""
        self._before = None  # else there would be both for a while
        self._before = self._run.copied_inputs()
        if self._own is None:
            self._own, self._shared = self._run.copied_inputs(), self._run.watch_shared()

    def turns(self, layer: ResidentLayer) -> Sequence[frozenset[str]]:
        """Return the parameters whose inputs are wanted, in the order in which they are used.

        Those that use one input are together.

        Raises:
            ModelError: layers hand on more than hidden states, which the two streams would take
                from each other.
        """
        self._refuse_shared(layer)
        before, _ = self._held()
        found: list[tuple[Tensor, set[str]]] = []

        def show(one: _Input) -> None:
            if any(one.parameter in names for _, names in found):
                return
            if found and found[-1][0].data_ptr() == one.input_NI.data_ptr():
                found[-1][1].add(one.parameter)
            else:
                found.append((one.input_NI, {one.parameter}))

        with _tapped(layer, lambda one: show(one) if self._moments.wants(one.parameter) else None):
            self._run.run_on(layer, 0, before.first())
        return [frozenset(names) for _, names in found]

    def see(self, layer: ResidentLayer, turn: Turn) -> None:
        """Show what both streams give some weights of a layer.

        Raises:
            ModelError: experts get other tokens than in the unquantized model.
        """
        before, own = self._held()
        experts = self._experts(layer)
        for batch, (unquantized_BTH, own_BTH) in enumerate(zip(before, own, strict=True)):
            seen, routing = deque[_Input](), KeptRouting(experts)
            tap = _tapped(layer, _Shown(turn, seen.append))
            with suppress(EnoughSeen), routing.recorded(layer.module), tap:
                self._run.run_on(layer, batch, unquantized_BTH.clone())
            pair = partial(self._pair, turn, seen)
            tap = _tapped(turn.layer, _Shown(turn, pair, rounds=True))
            with suppress(EnoughSeen), routing.replayed(turn.layer.module), tap:
                self._run.run_on(turn.layer, batch, own_BTH.clone())

    def go_on(self, twin: ResidentLayer, rounding: Rounding) -> None:
        """Run a layer, which is quantized, on what the ones before returned."""
        _, own = self._held()
        with _tapped(twin, lambda one: one.rounded(rounding)):
            for batch in range(len(own)):
                own.put(batch, self._run.run_on(twin, batch, own.take(batch)))

    def _experts(self, layer: ResidentLayer) -> Sequence[str]:
        """Return the modules of a layer that hold experts whose inputs are wanted."""
        names = {
            name.rpartition(".")[0]
            for name, one in layer.module.named_parameters()
            if one.ndim == _STACK and self._moments.wants(f"{layer.path}.{name}")
        }
        return sorted(names)

    def _pair(self, turn: Turn, seen: deque[_Input], own: _Input) -> None:
        """Add up an input beside that of the unquantized model."""
        one = seen.popleft() if seen else None
        if one is None or not one.is_same_call(own):
            message = (
                f"what is quantized changes which tokens reach '{own.parameter}', so that its "
                "inputs cannot be held beside the unquantized model's. Choose gptq in place of "
                "gptaq."
            )
            raise ModelError(message)
        input_NI = own.rounded(turn.rounding)
        if own.ends_E is None:
            self._moments.see_input(own.parameter, own.expert, input_NI, one.input_NI)
        else:
            self._moments.see_grouped(own.parameter, own.ends_E, input_NI, one.input_NI)

    def _held(self) -> tuple[Activations, Activations]:
        if self._before is None or self._own is None:
            message = "a layer was to be followed that has not run"
            raise ValueError(message)
        return self._before, self._own

    def _refuse_shared(self, layer: ResidentLayer) -> None:
        for name, each in self._shared.items():
            if any(one.is_read for one in each):
                message = (
                    f"'{layer.path}' reads '{name}' of layers before it beside the hidden states, "
                    "so that it cannot run once on unquantized ones and once on quantized ones. "
                    "Choose gptq in place of gptaq."
                )
                raise ModelError(message)


class _Shown:
    """Takes the calls of a layer, and ends the run when those of a turn were all seen."""

    def __init__(self, turn: Turn, show: Callable[[_Input], None], *, rounds: bool = False) -> None:
        self._turn, self._show, self._rounds = turn, show, rounds
        self._waiting = set(turn.parameters)
        self._has_experts = False
        """Of which each may have a call of its own, with others' between."""

    def __call__(self, one: _Input) -> Tensor | None:
        turn = self._turn
        if one.parameter in turn.parameters:
            self._waiting.discard(one.parameter)
            self._has_experts |= one.expert is not None or one.ends_E is not None
            self._show(one)
        elif not self._waiting and not self._has_experts:
            raise EnoughSeen
        is_rounded = self._rounds and one.parameter in turn.quantized
        return one.rounded(turn.rounding) if is_rounded else None


def _tapped(layer: ResidentLayer, on_call: OnCall) -> AbstractContextManager[None]:
    """Show each product of a layer with one of its weights."""

    def on_input(name: str, expert: int | None, input_NI: Tensor) -> Tensor | None:
        return on_call(_Input(f"{layer.path}.{name}", expert, None, input_NI))

    def on_grouped(name: str, ends_E: Tensor, input_NI: Tensor) -> Tensor | None:
        return on_call(_Input(f"{layer.path}.{name}", None, ends_E, input_NI))

    return tap_linears(layer.module, on_input, on_grouped)
