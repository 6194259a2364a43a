"""A model of which one decoder layer at a time is in memory.

The rest (embeddings, norms, the output layer, a vision tower) is there all the time. A layer is
read from the files when its turn comes, while the one before it still computes, into one of two
blocks of memory that are used in turns; so a model may be larger than the memory of the device and
of the host.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from harness.artifacts import Inventory
from harness.errors import ReasonCode, StageError
from harness.models.decoder import decoder_layers
from harness.models.load import fill, keep_wide, ready
from harness.models.memory import is_out_of_memory
from harness.models.pieces import LayerMap, Origins
from harness.models.reader import TensorReader
from harness.models.slices import cut
from harness.models.source import Source
from harness.models.structure import build_model
from harness.models.transfer import Transfer, threads_for
from harness.resources import ResourceOwner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CPU = torch.device("cpu")
_NUM_BLOCKS = 2


class ResidentLayer(NamedTuple):
    """A decoder layer while its weights are in memory."""

    number: int
    """Of the decoder's layers, from 0."""
    module: nn.Module
    path: str
    """Of the module in the model."""


class StreamedModel(ResourceOwner):
    """Context manager over a model whose decoder layers hold their weights one after another."""

    def __init__(
        self,
        source: Source,
        inventory: Inventory,
        *,
        device: str,
        dtype: torch.dtype,
        one_of_each: Mapping[str, object] | None = None,
    ) -> None:
        """Build the modules and read no weight.

        Args:
            source: the model's files.
            inventory: what they hold.
            device: torch device of the layers.
            dtype: of the running model.
            one_of_each: given if only one decoder layer of each kind will be asked for: what tells
                layers of the same structure apart, by the names of the model's parameters.

        Raises:
            ModelError: the model cannot be built, has no list of decoder layers, or a tensor does
                not fit its place in one.
        """
        super().__init__()
        self._source, self._inventory, self._device = source, inventory, torch.device(device)
        # What is allocated here and never written takes no memory of the host.
        self.model: PreTrainedModel = ready(build_model(source, device=_CPU, dtype=dtype), source)
        keep_wide(self.model, inventory, dtype)
        self.layers: nn.ModuleList = decoder_layers(self.model)
        """Those of the model; on the meta device, so that they can be looked at and not run."""
        (self._path,) = (name for name, m in self.model.named_modules() if m is self.layers)
        self._real = list(self.layers)
        self.kinds: Sequence[Sequence[int]] = self._alike(one_of_each or {})
        """The decoder layers, those of one kind together."""
        firsts = [same[0] for same in self.kinds]
        every = range(len(self._real))
        self.order: Sequence[int] = every if one_of_each is None else sorted(firsts)
        """The decoder layers that may be asked for."""
        self._origins = Origins(source, inventory)
        self._maps = {
            index: self._origins.map_layer(_stored(self._real[index], self.prefix(index)))
            for index in self.order
        }
        for index in self.order:
            self._empty(index)
        self.bytes_read = 0
        """Of decoder layers."""
        self.read_s = 0.0
        """In which they were read; other work went on meanwhile."""

    def _open(self) -> None:
        """Fill what is there all the time, and begin to read the first layer.

        Raises:
            ModelError: a tensor cannot be read, or does not fit its place.
            StageError: there is not enough memory for it.
        """
        try:
            self._fill_memory()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise layers_too_big(str(self._device)) from error

    def _fill_memory(self) -> None:
        self._blocks: list[Tensor] = []
        self._exits.callback(self._let_go)  # when no thread writes into them any more
        self._reader = self._exits.enter_context(TensorReader(self._source))
        self._transfer = self._exits.enter_context(Transfer(self._source.path, self._device))
        self._ahead = self._exits.enter_context(threads_for(self._device, 1, "read-ahead"))
        with _taken_out(self.layers):
            self._fill_rest()
        _move_buffers(self.model, self._device)
        num_bytes = max(layer.num_bytes for layer in self._maps.values())
        for _ in range(min(_NUM_BLOCKS, len(self.order))):
            self._blocks.append(torch.empty(num_bytes, dtype=torch.uint8, device=self._device))
        self._wait_for_memory()
        self._free: list[torch.cuda.Event | None] = [None] * _NUM_BLOCKS
        self._waiting = deque(enumerate(self.order))
        self._next = self._read_ahead()

    def _wait_for_memory(self) -> None:
        """Let copies to a GPU wait for what was queued before: it may use the memory they go to."""
        if self._device.type == "cuda":
            self._transfer.stream.wait_stream(torch.cuda.current_stream(self._device))

    def _fill_rest(self) -> None:
        """Read what is there all the time, as a layer is read."""
        stored = _stored(self.model, "")
        if len(set(map(id, stored.values()))) < len(stored):
            # Tied parameters must be compared in the files.
            fill(self.model, self._inventory, reader=self._reader)
            nn.Module.to(self.model, self._device)  # transformers' own `to` is not typed
            return
        layer_map = self._origins.map_layer(stored)
        block = torch.empty(layer_map.num_bytes, dtype=torch.uint8, device=self._device)
        self._wait_for_memory()
        self._fill(self.model, "", layer_map, block)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).wait_stream(self._transfer.stream)

    def _alike(self, marks: Mapping[str, object]) -> Sequence[Sequence[int]]:
        """Return the numbers of the layers: together where modules, parameters and marks agree."""
        kinds: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for index, layer in enumerate(self._real):
            modules = tuple((name, type(module)) for name, module in layer.named_modules())
            parameters = tuple(
                (name, value.shape, marks.get(f"{self.prefix(index)}{name}"))
                for name, value in layer.named_parameters()
            )
            kinds[modules, parameters].append(index)
        return list(kinds.values())

    def _let_go(self) -> None:
        if self._device.type == "cuda":  # nothing is copied into them any more
            torch.cuda.synchronize(self._device)
        self._blocks.clear()

    def __len__(self) -> int:
        """Return the number of decoder layers."""
        return len(self._real)

    def num_bytes(self, index: int) -> int:
        """Return the size of decoder layer `index`."""
        return self._maps[index].num_bytes

    def prefix(self, index: int) -> str:
        """Return the beginning of the names of decoder layer `index`."""
        return f"{self._path}.{index}."

    @contextmanager
    def resident(self, index: int) -> Iterator[ResidentLayer]:
        """Give decoder layer `index` with its weights, on the device, while the context lasts.

        They are asked for once each and as in `order`, for the next one is read meanwhile.

        Raises:
            ModelError: a tensor cannot be read.
        """
        self._next.result()
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).wait_stream(self._transfer.stream)
        block = self.order.index(index) % _NUM_BLOCKS
        self._next = self._read_ahead()
        try:
            yield ResidentLayer(index, self._real[index], f"{self._path}.{index}")
        finally:
            self._empty(index)
            if self._device.type == "cuda":
                used_by = torch.cuda.current_stream(self._device)
                self._free[block] = used_by.record_event()

    def _read_ahead(self) -> "Future[None]":
        """Begin to read the layer whose turn comes next, if one is left."""
        if not self._waiting:
            return self._next
        turn, index = self._waiting.popleft()
        return self._ahead.submit(self._read, index, turn % _NUM_BLOCKS)

    def _read(self, index: int, number: int) -> None:
        """Bring a layer's weights into a block of memory."""
        if (free := self._free[number]) is not None:
            self._transfer.stream.wait_event(free)
        started = time.perf_counter()
        layer_map = self._maps[index]
        self._fill(self._real[index], self.prefix(index), layer_map, self._blocks[number])
        self.read_s += time.perf_counter() - started
        self.bytes_read += layer_map.num_bytes

    @torch.inference_mode()
    def _fill(self, module: nn.Module, prefix: str, layer_map: LayerMap, block: Tensor) -> None:
        """Read a module's weights into a block of memory, and let them be its parameters.

        Args:
            module: the model, or a layer of it.
            prefix: of the module's names in the model.
            layer_map: how its weights come into the block.
            block: uint8.
        """
        self._transfer.read(layer_map.spans, block)
        tensors: dict[str, Tensor] = {}
        for name, view in layer_map.views.items():
            of_view = block[view.offset : view.offset + view.num_bytes]
            tensors[name.removeprefix(prefix)] = of_view.view(view.dtype).view(view.shape)
        module.load_state_dict(tensors, assign=True)
        for origin, place in layer_map.converted:
            into = cut(tensors[place.tensor.removeprefix(prefix)], place)
            value = cut(self._reader.tensor(origin.tensor), origin)
            self._convert(value.reshape(into.shape), into)

    def _convert(self, value: Tensor, place: Tensor) -> None:
        if self._device.type == "cuda":
            with torch.cuda.stream(self._transfer.stream):
                place.copy_(value)
        else:
            place.copy_(value)

    def _empty(self, index: int) -> None:
        prefix = self.prefix(index)
        nothing = {
            name.removeprefix(prefix): torch.empty(view.shape, dtype=view.dtype, device="meta")
            for name, view in self._maps[index].views.items()
        }
        self._real[index].load_state_dict(nothing, assign=True)


def layers_too_big(device: str) -> StageError:
    """Return what is said where a model cannot even be streamed."""
    message = (
        f"two decoder layers, and what is there all the time, do not fit into the memory of "
        f"'{device}'. Allow more, or take a larger device."
    )
    return StageError(message, reason=ReasonCode.OUT_OF_MEMORY)


@contextmanager
def _taken_out(layers: nn.ModuleList) -> Iterator[None]:
    """Take layers out of their model in the context."""
    real = list(layers)
    for index in range(len(real)):
        layers[index] = nn.Identity()
    try:
        yield
    finally:
        for index, layer in enumerate(real):
            layers[index] = layer


def _stored(module: nn.Module, prefix: str) -> Mapping[str, Tensor]:
    """Return what files hold of a module: its parameters, and the buffers that are stored."""
    return {f"{prefix}{name}": one for name, one in module.state_dict(keep_vars=True).items()}


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    """Move what modules compute when they are built; the files do not have it."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:  # else it comes with its layer
                setattr(module, name, buffer.to(device))
