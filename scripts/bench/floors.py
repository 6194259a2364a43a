"""The least that the parts of PTQ can take on a machine: one read, one forward, one write.

Measured with plain code on some of the bytes and scaled up: files read and written by threads, a
copy and a matrix product on the device. A forward's floor is the arithmetic of the decoder's linear
layers that a token meets, at the rate of a large product; attention and all else count nothing, and
the output layer, a fifth of a whole model's arithmetic, is not run.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from harness.artifacts import Inventory
from harness.models import open_source, read_inventory
from scripts.bench.watch import put_out_of_memory

_THREADS = 16
_PIECE_BYTES = 16 << 20
_SOME_BYTES = 4 << 30
_REPEATS = 20
"""A GPU that was idle takes some products until its clock is up."""
_HEAD = "lm_head"


def floors(model: Path, checkpoint: Path, *, num_tokens: int, device: str) -> dict[str, float]:
    """Return seconds for reading, for the forward, for quantizing and for writing."""
    source = open_source(str(model))
    inventory = read_inventory(source)
    written = weight_bytes(checkpoint)
    weights = sum(2 * math.prod(one.shape) for one in inventory.linears)
    arithmetic = 2 * _met_by_a_token(inventory, source.config) * num_tokens
    return {
        "read": weight_bytes(model) / _read_rate(model),
        "forward": arithmetic / _product_rate(device),
        "quantize": (weights + written) / _copy_rate(device),
        "write": written / _write_rate(checkpoint.parent, min(written, _SOME_BYTES)),
    }


def weight_bytes(folder: Path) -> int:
    """Return the size of a folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _met_by_a_token(inventory: Inventory, config: Mapping[str, Any]) -> float:
    """Return how many weights a token is multiplied with."""
    values = config.get("text_config", config)
    share = values.get("num_experts_per_tok", 1) / values.get("num_experts", 1)
    decoder = [one for one in inventory.linears if one.name.rpartition(".")[2] != _HEAD]
    language = (one for one in decoder if "visual" not in one.name)
    return sum(math.prod(one.shape) * (share if one.is_routed else 1.0) for one in language)


def _read_rate(folder: Path) -> float:
    """Return the bytes that threads read a second."""
    files = sorted(folder.glob("*.safetensors"))
    pieces = [
        (file, begin) for file in files for begin in range(0, file.stat().st_size, _PIECE_BYTES)
    ]
    # A disk is not alike everywhere: stretches from all over the files.
    apart = _THREADS * math.ceil(len(pieces) * _PIECE_BYTES / _SOME_BYTES)
    some = [one for at in range(0, len(pieces), apart) for one in pieces[at : at + _THREADS]]

    def read(piece: tuple[Path, int]) -> int:
        path, begin = piece
        content = bytearray(_PIECE_BYTES)
        file = os.open(path, os.O_RDONLY)
        try:
            return os.preadv(file, [content], begin)
        finally:
            os.close(file)

    put_out_of_memory(folder)
    with ThreadPoolExecutor(_threads()) as threads:
        started = time.perf_counter()
        num_bytes = sum(threads.map(read, some))
        return num_bytes / (time.perf_counter() - started)


def _write_rate(folder: Path, num_bytes: int) -> float:
    """Return the bytes that threads write a second, each into a file of its own."""
    number = _threads()
    content = bytes(max(1, num_bytes // number))

    def write(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())

    with tempfile.TemporaryDirectory(dir=folder) as into, ThreadPoolExecutor(number) as threads:
        started = time.perf_counter()
        list(threads.map(write, [Path(into) / str(index) for index in range(number)]))
        return number * len(content) / (time.perf_counter() - started)


def _copy_rate(device: str) -> float:
    """Return the bytes that a copy reads and writes a second."""
    one = torch.ones((1 << 30) if device.startswith("cuda") else (1 << 26), dtype=torch.uint8)
    one = one.to(device)
    other = torch.empty_like(one)
    return 2 * one.nbytes / _fastest(lambda: other.copy_(one), device)


def _product_rate(device: str) -> float:
    """Return the operations a second of a large product of bfloat16 matrices."""
    size = 8192 if device.startswith("cuda") else 1024
    one = torch.randn(size, size, device=device).bfloat16()
    return 2 * size**3 / _fastest(lambda: one @ one, device)


def _fastest(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(_REPEATS + 1):  # the first one loads what is loaded
        started = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)


def _threads() -> int:
    return min(_THREADS, os.cpu_count() or 1)
