"""A model of which one decoder layer at a time is in memory.

The rest (embeddings, norms, the output layer, a vision tower) is there all the time. A layer is
read from the files when its turn comes, while the one before it still computes, into one of two
blocks of memory that are used in turns; so a model may be larger than the memory of the device and
of the host.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.artifacts import Inventory
from harness.holding import Holding
from harness.models.load import fill, ready
from harness.models.observe import decoder_layers
from harness.models.pieces import Origins, part
from harness.models.reader import TensorReader
from harness.models.source import Source
from harness.models.structure import build_model
from harness.models.transfer import Transfer

_CPU = torch.device("cpu")
_NUM_BLOCKS = 2


class StreamedModel(Holding):
    """Context manager over a model whose decoder layers hold their weights one after another."""

    def __init__(
        self, source: Source, inventory: Inventory, *, device: str, dtype: torch.dtype
    ) -> None:
        """Build the modules and read no weight.

        Raises:
            ModelError: the model cannot be built, has no list of decoder layers, or a tensor does
                not fit its place in one.
        """
        super().__init__()
        self._source, self._inventory, self._device = source, inventory, torch.device(device)
        # What is allocated here and never written takes no memory of the host.
        self.model: PreTrainedModel = ready(build_model(source, device=_CPU, dtype=dtype), source)
        self.layers: nn.ModuleList = decoder_layers(self.model)
        """Those of the model; on the meta device, so that they can be looked at and not run."""
        (self._path,) = (name for name, m in self.model.named_modules() if m is self.layers)
        self._real = list(self.layers)
        origins = Origins(source, inventory)
        self._maps = [
            origins.map_layer(_parameters(layer, self.prefix(index)))
            for index, layer in enumerate(self._real)
        ]
        for index in range(len(self)):
            self._empty(index)

    def _take_hold(self) -> None:
        """Fill what is there all the time, and begin to read the first layer.

        Raises:
            ModelError: a tensor cannot be read, or does not fit its place.
        """
        self._blocks: list[Tensor] = []
        self._exits.callback(self._blocks.clear)  # when no thread writes into them any more
        self._reader = self._exits.enter_context(TensorReader(self._source))
        self._transfer = self._exits.enter_context(Transfer(self._source.path, self._device))
        self._ahead = self._exits.enter_context(ThreadPoolExecutor(1, "read-ahead"))
        with _taken_out(self.layers):
            fill(self.model, self._inventory, reader=self._reader)
            nn.Module.to(self.model, self._device)  # transformers' own `to` is not typed
        for layer in self._real:
            _move_buffers(layer, self._device)
        num_bytes = max(layer.num_bytes for layer in self._maps)
        self._blocks += [
            torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
            for _ in range(min(_NUM_BLOCKS, len(self)))
        ]
        self._free: list[torch.cuda.Event | None] = [None] * _NUM_BLOCKS
        self._next = self._read_ahead(0)

    def __len__(self) -> int:
        """Return the number of decoder layers."""
        return len(self._real)

    def prefix(self, index: int) -> str:
        """Return the beginning of the names of decoder layer `index`."""
        return f"{self._path}.{index}."

    @contextmanager
    def resident(self, index: int) -> Iterator[nn.Module]:
        """Give decoder layer `index` with its weights, on the device, while the context lasts.

        The layers are asked for once each and in order, for the next one is read meanwhile.

        Raises:
            ModelError: a tensor cannot be read.
        """
        self._next.result()
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).wait_stream(self._transfer.stream)
        if index + 1 < len(self):
            self._next = self._read_ahead(index + 1)
        try:
            yield self._real[index]
        finally:
            self._empty(index)
            if self._device.type == "cuda":
                used_by = torch.cuda.current_stream(self._device)
                self._free[index % _NUM_BLOCKS] = used_by.record_event()

    def _read_ahead(self, index: int) -> "Future[None]":
        return self._ahead.submit(self._read, index)

    @torch.inference_mode()
    def _read(self, index: int) -> None:
        """Bring a layer's weights into its block of memory."""
        layer_map, block = self._maps[index], self._blocks[index % _NUM_BLOCKS]
        if (free := self._free[index % _NUM_BLOCKS]) is not None:
            self._transfer.stream.wait_event(free)
        self._transfer.read(layer_map.spans, block)
        values = {name: view.of(block) for name, view in layer_map.views.items()}
        for origin, place in layer_map.converted:
            value = part(self._reader.tensor(origin.tensor), origin)
            self._convert(value, part(values[place.tensor], place))
        self._set(index, values)

    def _convert(self, value: Tensor, place: Tensor) -> None:
        if self._device.type == "cuda":
            with torch.cuda.stream(self._transfer.stream):
                place.copy_(value)
        else:
            place.copy_(value)

    def _empty(self, index: int) -> None:
        views = self._maps[index].views
        meta = torch.device("meta")
        values = {n: torch.empty(v.shape, dtype=v.dtype, device=meta) for n, v in views.items()}
        self._set(index, values)

    def _set(self, index: int, values: Mapping[str, Tensor]) -> None:
        layer, prefix = self._real[index], self.prefix(index)
        for name, value in values.items():
            path, _, leaf = name.removeprefix(prefix).rpartition(".")
            parameter = nn.Parameter(value, requires_grad=False)
            layer.get_submodule(path).register_parameter(leaf, parameter)


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


def _parameters(layer: nn.Module, prefix: str) -> Mapping[str, Tensor]:
    return {f"{prefix}{name}": parameter for name, parameter in layer.named_parameters()}


def _move_buffers(layer: nn.Module, device: torch.device) -> None:
    """Move what a layer computes when it is built; the files do not have it."""
    for module in layer.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
