"""Weight quantization beside a plain copy on the same device: bytes a second of both.

    python -m scripts.bench.weights --device cuda --record

One layer's experts of the Qwen3.6-35B-A3B shape, bfloat16, resident. Quantizing counts the bytes
that it reads and writes; finding the largest value of each expert is a pass of its own.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from harness.formats import get_format, known_formats
from scripts import ledger

_REPEATS = 5
_IN_A_ROW = 20
_GB = 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    weight_EOI = torch.randn(arguments.experts, 1024, 2048, device=device).mul_(0.02).bfloat16()
    amax = weight_EOI.float().abs().amax(dim=(1, 2)).tolist()
    other = torch.empty_like(weight_EOI)
    copied = _rate(lambda: other.copy_(weight_EOI), 2 * weight_EOI.nbytes)
    rates = {name: _quantized(name, weight_EOI, amax) for name in known_formats()}
    rates["largest values"] = _rate(
        lambda: torch.aminmax(weight_EOI.flatten(1), dim=1), weight_EOI.nbytes
    )
    values = {
        "weights": f"{arguments.experts} x 1024 x 2048, {weight_EOI.nbytes / _GB:.2f} GB",
        "plain copy": f"{copied:.1f} GB/s",
        **{
            name: f"{rate:.1f} GB/s, {rate / copied:.0%} of the copy"
            for name, rate in rates.items()
        },
    }
    for name, value in values.items():
        print(f"{name}: {value}", flush=True)
    if arguments.record:
        command = f"python -m scripts.bench.weights {' '.join(sys.argv[1:])}".strip()
        claim = "Weight quantization against a plain copy"
        ledger.append(claim, command=command, values=values)


def _quantized(name: str, weight_EOI: Tensor, amax: Sequence[float]) -> float:
    """Return GB a second of what a format reads and writes."""
    quantize = partial(get_format(name).quantize_weights, weight_EOI, amax=amax)
    written = sum(stored.nbytes for stored in quantize().values())
    return _rate(quantize, weight_EOI.nbytes + written)


def _rate(work: Callable[[], object], num_bytes: int) -> float:
    """Return GB a second of the fastest of some runs of several in a row, as layers follow."""
    best = float("inf")
    for _ in range(_REPEATS):
        _wait()
        started = time.perf_counter()
        for _ in range(_IN_A_ROW):
            work()
        _wait()
        best = min(best, (time.perf_counter() - started) / _IN_A_ROW)
    return num_bytes / best / _GB


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
