"""What stands in for decoder layers while a model runs without them.

A layer may return its hidden states alone or first in a tuple, which its model unpacks; so one
layer is run on a few tokens, and stubs return as it does. That layers run one after another, each
on what the one before returned, is checked and not assumed.

Shapes: B samples of a batch, T tokens of a sample, H hidden size.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from harness.errors import ModelError
from harness.models import RUN_ERRORS, is_out_of_memory


class Call(NamedTuple):
    """How a model called one of its layers, besides the hidden states."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Watched(dict[Any, Any]):
    """A mapping that a model hands all its layers: tells whether one read what another put there.

    A `dict` stands in for any mapping, for layers may ask whether it is one.
    """

    def __init__(self, values: Mapping[Any, Any]) -> None:
        """Take what the model put there itself."""
        super().__init__(values)
        self._own = frozenset(values)
        self.is_read = False

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401  # as dict has it
        """Return a value."""
        self.is_read |= key not in self._own
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401  # as dict has it
        """Return a value, or the default."""
        self.is_read |= key in self and key not in self._own
        return super().get(key, default)


@dataclass(frozen=True, slots=True)
class Returned:
    """How layers of a family return their hidden states."""

    num_others: int | None
    """Behind them in a tuple; None where they are returned alone."""

    def like(self, hidden_BTH: Tensor) -> object:
        """Return hidden states in the same way; what else a layer returns is not made up."""
        if self.num_others is None:
            return hidden_BTH
        return (hidden_BTH, *[None] * self.num_others)


ALONE = Returned(None)


class EnoughSeen(Exception):  # noqa: N818  # no error: the way out of a run that was only begun
    """The one layer that was to be tried has run."""


class _StandIn(nn.Module):
    """Answers for a layer, also where its model asks it for a setting."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # no submodule: its weights are not this one's

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as torch has it
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"][0], name)


class Trial(_StandIn):
    """Runs a layer, remembers how it returns, and ends the run."""

    returned = ALONE

    def forward(self, *arguments: object, **options: object) -> None:
        """Run the layer; the model goes no further."""
        output = self._layer[0](*arguments, **options)
        if isinstance(output, tuple):
            self.returned = Returned(len(output) - 1)
        raise EnoughSeen


class CallRecorder(_StandIn):
    """Keeps the calls of a layer and returns the hidden states unchanged."""

    def __init__(
        self,
        layer: nn.Module,
        keep: Callable[[Tensor], None] | None,
        before: "CallRecorder | None",
    ) -> None:
        """Hand the hidden states to `keep`; the first layer's alone: others' are made by layers."""
        super().__init__(layer)
        self.calls: list[Call] = []
        self.returned = ALONE
        self.is_chained = True
        """Whether each call got what the layer before had returned."""
        self._keep, self._before = keep, (before,)
        self.last: Tensor | None = None
        """What was returned last."""

    def forward(self, hidden_states: Tensor, *arguments: object, **options: object) -> object:
        """Keep the call."""
        self.calls.append(Call(arguments=arguments, options=options))
        (before,) = self._before
        if before is not None and before.last is not hidden_states:
            self.is_chained = False
        if self._keep is not None:
            self._keep(hidden_states)
        self.last = hidden_states
        return self.returned.like(hidden_states)


class Replay(_StandIn):
    """Returns what the last layer returned for each batch."""

    def __init__(self, last: CallRecorder, outputs_BTH: Iterable[Tensor]) -> None:
        super().__init__(last)
        self._returned, self._outputs_BTH = last.returned, iter(outputs_BTH)

    def forward(self, *arguments: object, **options: object) -> object:
        """Return the next batch's."""
        del arguments, options
        return self._returned.like(next(self._outputs_BTH))


def record_calls(layers: nn.ModuleList, keep: Callable[[Tensor], None]) -> list[CallRecorder]:
    """Put a recorder in place of each layer; `keep` gets the hidden states that the first gets."""
    stubs: list[CallRecorder] = []
    for layer in layers:
        before = stubs[-1] if stubs else None
        stubs.append(CallRecorder(layer, None if stubs else keep, before))
    for index, stub in enumerate(stubs):
        layers[index] = stub
    return stubs


def refuse_other_order(
    model: nn.Module, stubs: Sequence[CallRecorder], num_runs: int, otherwise: str
) -> None:
    """Refuse a model that runs its layers otherwise than one after another.

    Args:
        model: that was run.
        stubs: in the place of its layers.
        num_runs: of the model.
        otherwise: what helps.

    Raises:
        ModelError: a layer ran not once a batch, or on something else than what came out of the
            one before.
    """
    for number, stub in enumerate(stubs):
        if len(stub.calls) == num_runs and stub.is_chained:
            continue
        what = f"ran {len(stub.calls)} times in {num_runs} batch(es)"
        if len(stub.calls) == num_runs:
            what = "gets something else than the layer before returns"
        message = (
            f"decoder layer {number} of {type(model).__name__} {what}, so that layers cannot be "
            f"calibrated one after another. {otherwise}"
        )
        raise ModelError(message)


@contextmanager
def naming_what_stopped(module: nn.Module) -> Iterator[None]:
    """Turn what a model raises where it cannot run into one line; lack of memory is told later.

    Raises:
        ModelError: transformers' own code stopped.
    """
    try:
        yield
    except RUN_ERRORS as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message = (
            f"{type(module).__name__} of transformers stopped ({reason}). Look whether it runs in "
            "transformers itself, in the type of its files; if so, type --whole."
        )
        raise ModelError(message) from error
