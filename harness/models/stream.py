"""A model of which one decoder layer at a time is in memory.

The rest (embeddings, norms, the output layer, a vision tower) is there all the time. A layer is
read from the files when its turn comes, while the one before it still computes, and is gone
afterwards; so a model may be larger than the memory of the device and of the host.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.artifacts import Inventory
from harness.models.load import fill, ready
from harness.models.observe import decoder_layers
from harness.models.reader import TensorReader
from harness.models.source import Source
from harness.models.structure import build_model

_CPU = torch.device("cpu")


class StreamedModel:
    """Context manager over a model whose decoder layers hold their weights one after another."""

    def __init__(
        self, source: Source, inventory: Inventory, *, device: str, dtype: torch.dtype
    ) -> None:
        """Build the modules and read no weight.

        Raises:
            ModelError: the model cannot be built, or has no list of decoder layers.
        """
        self._source, self._inventory, self._device = source, inventory, torch.device(device)
        # What is allocated here and never written takes no memory of the host.
        self.model: PreTrainedModel = ready(build_model(source, device=_CPU, dtype=dtype), source)
        self.layers: nn.ModuleList = decoder_layers(self.model)
        """Those of the model; on the meta device, so that they can be looked at and not run."""
        (self._path,) = (name for name, m in self.model.named_modules() if m is self.layers)
        self._real = list(self.layers)
        self._buffers = [_buffers(layer) for layer in self._real]
        for layer in self._real:
            layer.to("meta")
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        """Fill what is there all the time, and begin to read the first layer.

        Raises:
            ModelError: a tensor cannot be read, or does not fit its place.
        """
        with self._exits as exits:
            self._reader = exits.enter_context(TensorReader(self._source))
            self._ahead = exits.enter_context(ThreadPoolExecutor(1, "read-ahead"))
            with _taken_out(self.layers):
                fill(self.model, self._inventory, reader=self._reader)
                nn.Module.to(self.model, self._device)  # transformers' own `to` is not typed
            self._next = self._read_ahead(0)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.__exit__(kind, error, trace)

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
            ModelError: a tensor cannot be read, or does not fit its place.
        """
        layer = self._next.result()
        if index + 1 < len(self):
            self._next = self._read_ahead(index + 1)
        try:
            yield layer.to(self._device)
        finally:
            layer.to("meta")

    def _read_ahead(self, index: int) -> "Future[nn.Module]":
        return self._ahead.submit(self._read, index)

    def _read(self, index: int) -> nn.Module:
        """Return a layer with its weights in the host's memory."""
        layer = self._real[index].to_empty(device=_CPU)
        for name, value in self._buffers[index].items():
            layer.get_buffer(name).copy_(value)
        path = f"{self._path}.{index}"
        fill(layer, self._inventory, reader=self._reader, path=path)
        return layer


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


def _buffers(layer: nn.Module) -> Mapping[str, Tensor]:
    """Return what a layer computes when it is built; the files do not have it."""
    return {name: buffer.clone() for name, buffer in layer.named_buffers()}
