"""What it costs to follow a load: tensors copied into a parameter, with the tape and without.

    python -m scripts.bench.tape --record

As vLLM loads an expert: the place of the expert is selected, half of it narrowed, a tensor copied
into it; its scale is read as a number and filled in. Reading files is not followed and left out.
"""

import argparse
import shlex
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from harness.plugin.harness_vllm.tape import Tape
from scripts import ledger

_EXPERTS, _ROWS, _WIDTH = 256, 32, 32
_REPEATS = 3
_OF_40_LAYERS = 124_576
"""Tensors of a checkpoint of 40 layers with 256 experts."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    number = arguments.layers * _EXPERTS * 4
    plain = min(_seconds(arguments.layers, taped=False) for _ in range(_REPEATS)) / number
    taped = min(_seconds(arguments.layers, taped=True) for _ in range(_REPEATS)) / number
    values = {
        "tensors": number,
        "copied": f"{plain * 1e6:.1f} us each",
        "copied and followed": f"{taped * 1e6:.1f} us each, {taped / plain:.1f} times",
        "more, for 40 layers of 256 experts": f"{(taped - plain) * _OF_40_LAYERS:.1f} s",
    }
    for name, value in values.items():
        print(f"{name}: {value}")
    if arguments.record:
        command = shlex.join(["python", "-m", "scripts.bench.tape", *sys.argv[1:]])
        ledger.append("Cost of following a load of vLLM", command=command, values=values)


def _seconds(layers: int, *, taped: bool) -> float:
    """Return the seconds of loading gate and up, weights and scales."""
    weight = torch.zeros(_ROWS, _WIDTH, dtype=torch.uint8)
    parameters = [
        torch.empty(_EXPERTS, 2 * _ROWS, _WIDTH, dtype=torch.uint8) for _ in range(layers)
    ]
    scales = [torch.empty(_EXPERTS, 2) for _ in range(layers)]
    tape = Tape()
    tape.watch([*parameters, *scales])
    following: AbstractContextManager[object] = tape if taped else nullcontext()
    started = time.perf_counter()
    with following:
        for layer, (parameter, scale) in enumerate(zip(parameters, scales, strict=True)):
            for expert in range(_EXPERTS):
                for half in range(2):
                    _load(tape, f"{layer}.{expert}.{half}", weight.clone(), parameter[expert], half)
                    given = torch.tensor(0.5)
                    tape.mark(f"{layer}.{expert}.{half}.scale", given)
                    scale[expert][half] = given.item()
    return time.perf_counter() - started


def _load(tape: Tape, name: str, given: torch.Tensor, place: torch.Tensor, half: int) -> None:
    tape.mark(name, given)
    place.narrow(0, half * _ROWS, _ROWS).copy_(given)


if __name__ == "__main__":
    main()
