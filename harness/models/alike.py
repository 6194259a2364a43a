"""Whether a model with powers of two in its weights computes what it computes without them.

What says that a fold is right is neither who made it nor what layers are called: a model is run on
a few tokens, and each decoder layer twice, as it is and with its weights multiplied with 2^k.
Powers of two change no digit, so a layer in which all of them cancel returns the same bits; a norm
whose readers do not all follow, or one that multiplies with 1 + w, does not.

Shapes: O output features, I input features.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.artifacts import Inventory, Slice
from harness.errors import HarnessError
from harness.models.decoder import answering
from harness.models.inventory import read_inventory
from harness.models.memory import RUN_ERRORS
from harness.models.mixed_types import mixed_types_run
from harness.models.observe import experts_run, tap_linears
from harness.models.slices import cut
from harness.models.source import read_source
from harness.models.stream import ResidentLayer, StreamedModel
from harness.models.structure import vocabulary_size

_log = logging.getLogger("harness.models")
_TOKENS = 256
Exponents = tuple[int, ...]
"""k of each feature."""


class Powers(NamedTuple):
    """What is multiplied with powers of two."""

    tensors: Mapping[str, Exponents]
    """By tensor of the model's files, along the last dimension: norms, and matrices that are not
    quantized."""
    modules: Mapping[str, tuple[Exponents, Exponents]]
    """By linear layer: rows, and columns."""


def unproven(folder: Path, powers: Powers) -> frozenset[str]:
    """Return the tensors and layers whose powers of two change what a decoder layer computes.

    Those too of which that cannot be found out. All that is changed of a layer is named, if any is.

    Raises:
        ModelError: the model cannot be read.
    """
    source = read_source(folder)
    inventory = read_inventory(source)
    found = _Found(inventory, powers)
    # In float32, where less is lost of what is small beside the rest.
    streamed = StreamedModel(source, inventory, device="cpu", dtype=torch.float32)
    model = answering(streamed.model)
    ids_1T = torch.arange(_TOKENS).remainder(vocabulary_size(source))[None]
    with streamed, torch.inference_mode(), experts_run(streamed.model, "eager"):
        for index in streamed.order:
            streamed.layers[index] = _Twice(streamed, index, found)
        try:
            with mixed_types_run(streamed.model):
                model.base_model(input_ids=ids_1T, use_cache=False)
        except (HarnessError, *RUN_ERRORS) as error:
            _log.info("verify: the source does not run here (%s)", error)
    return frozenset({*powers.tensors, *powers.modules} - found.proven)


class _Change(NamedTuple):
    """Of one linear layer's weight, or of a whole parameter."""

    name: str
    """In `Powers`."""
    place: Slice
    rows_O: Exponents | None
    columns_I: Exponents


class _Found:
    """Powers by parameter, and what was proven."""

    def __init__(self, inventory: Inventory, powers: Powers) -> None:
        self.proven: set[str] = set()
        self._changes: dict[str, list[_Change]] = defaultdict(list)
        self._products = {one.parameter.tensor for one in inventory.linears}
        for parameter, tensor in inventory.others.items():
            if tensor in powers.tensors:
                change = _Change(tensor, Slice(tensor=parameter), None, powers.tensors[tensor])
                self._changes[parameter].append(change)
        for linear in inventory.linears:
            place, tensor = linear.parameter, linear.source.tensor
            if linear.name in powers.modules:
                change = _Change(linear.name, place, *powers.modules[linear.name])
                self._changes[place.tensor].append(change)
            elif tensor in powers.tensors and linear.source == Slice(tensor=tensor):
                change = _Change(tensor, place, None, powers.tensors[tensor])
                self._changes[place.tensor].append(change)

    def of(self, layer: ResidentLayer) -> Sequence[_Change]:
        """Return all that is changed in a layer."""
        names = (f"{layer.path}.{name}" for name, _ in layer.module.named_parameters())
        return [change for name in names for change in self._changes.get(name, ())]

    def products(self, layer: ResidentLayer) -> set[str]:
        """Return the parameters of a layer's linear layers, by their names in it."""
        prefix = f"{layer.path}."
        return {one.removeprefix(prefix) for one in self._products if one.startswith(prefix)}


class _Twice(nn.Module):
    """Runs a decoder layer as it is, and where it is changed once more with that."""

    def __init__(self, streamed: StreamedModel, index: int, found: _Found) -> None:
        super().__init__()
        self._own = (streamed, index, found, streamed.layers[index])  # no submodules

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as torch has it
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_own"][3], name)

    def forward(self, hidden_BTH: Tensor, *arguments: Any, **options: Any) -> object:  # noqa: ANN401  # as transformers gives them
        """Return what the layer returns as it is."""
        streamed, index, found, _ = self._own
        with streamed.resident(index) as layer:

            def run() -> object:
                return layer.module(hidden_BTH.clone(), *arguments, **options)

            output = run()
            changes = found.of(layer)
            if changes and _is_same(layer, changes, found.products(layer), run):
                found.proven |= {change.name for change in changes}
        return output


def _is_same(
    layer: ResidentLayer, changes: Sequence[_Change], products: set[str], run: Callable[[], object]
) -> bool:
    """Tell whether a layer returns the same with all changes, whichever expert is asked.

    Few tokens reach few experts. So all of them take turns in the places of those that are reached.
    """
    experts = {name: value for name in products if (value := _parameter(layer, name)).ndim > 2}  # noqa: PLR2004  # a matrix has two
    numbers = {len(value) for value in experts.values()} or {1}
    number = max(numbers)
    waiting, turn = set(range(number)), 0
    while len(numbers) == 1 and waiting and turn < number:
        seen: dict[str, set[int]] = defaultdict(set)

        def see(name: str, expert: int | None, input_NI: Tensor, seen: Any = seen) -> None:  # noqa: ANN401  # as above
            if input_NI.numel():
                seen[name].add(expert or 0)

        with _turned(experts, turn), tap_linears(layer.module, see):
            wanted = _hidden(run())
        if not products <= seen.keys():
            return False
        with _multiplied(layer, changes), _turned(experts, turn):
            if not torch.equal(_hidden(run()), wanted):
                return False
        reached = [seen[name] for name in experts] or [{0}]
        waiting -= {(place - turn) % number for place in set.intersection(*reached)}
        turn += 1
    return not waiting


@contextmanager
def _turned(experts: Mapping[str, Tensor], turn: int) -> Iterator[None]:
    """Let expert n have the place of expert n + `turn` in the context."""
    for value in experts.values() if turn else ():
        value.copy_(value.roll(turn, 0))
    try:
        yield
    finally:
        for value in experts.values() if turn else ():
            value.copy_(value.roll(-turn, 0))


@contextmanager
def _multiplied(layer: ResidentLayer, changes: Sequence[_Change]) -> Iterator[None]:
    """Multiply parameters in the context."""
    names = {change.place.tensor.removeprefix(f"{layer.path}.") for change in changes}
    kept = {name: _parameter(layer, name).clone() for name in names}
    try:
        for change in changes:
            value = _parameter(layer, change.place.tensor.removeprefix(f"{layer.path}."))
            view = cut(value, change.place) if value.ndim > 1 else value
            view.mul_(_factors(change.columns_I, view.dtype))
            if change.rows_O is not None:
                view.mul_(_factors(change.rows_O, view.dtype).unsqueeze(-1))
        yield
    finally:
        for name, value in kept.items():
            _parameter(layer, name).copy_(value)


def _factors(exponents: Exponents, dtype: torch.dtype) -> Tensor:
    return torch.tensor([2.0**k for k in exponents]).to(dtype)


def _parameter(layer: ResidentLayer, name: str) -> Tensor:
    return layer.module.get_parameter(name).data


def _hidden(output: object) -> Tensor:
    hidden = output[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)  # noqa: S101  # as layers return
    return hidden
