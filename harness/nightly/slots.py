"""What of this machine each cell gets: GPUs of its own, or one of the places without."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from harness.nightly.matrix import Cell

_NAMES = (
    "import torch\n"
    "for n in range(torch.cuda.device_count()): print(torch.cuda.get_device_name(n))\n"
)


class Gpu(NamedTuple):
    """A GPU of this machine."""

    place: str
    """As CUDA_VISIBLE_DEVICES takes it."""
    name: str


def gpus_here() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use.

    Another process asks, for who asks holds memory of each of them until it ends.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ()
    asked = subprocess.run(
        [sys.executable, "-c", _NAMES], capture_output=True, text=True, check=False
    )
    names = asked.stdout.splitlines()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    places = chosen.split(",") if chosen else [str(n) for n in range(len(names))]
    return tuple(Gpu(p.strip(), n) for p, n in zip(places, names, strict=False))


class Slots:
    """What is free on this machine."""

    def __init__(self, gpus: Sequence[Gpu], places: int) -> None:
        """Begin with everything free.

        Args:
            gpus: of this machine.
            places: how many cells without GPUs may run at a time.
        """
        self._gpus = tuple(gpus)
        self._free = list(gpus)
        self._places = places

    def why_never(self, cell: Cell) -> str:
        """Return why a cell cannot run on this machine; empty where it can."""
        fit = [gpu for gpu in self._gpus if _fits(cell, gpu)]
        if len(fit) >= cell.gpus:
            return ""
        kind = f"{cell.hardware} " if cell.hardware else ""
        return f"it needs {cell.gpus} {kind}GPUs, and this machine has {len(fit)}"

    def take(self, cell: Cell) -> tuple[Gpu, ...] | None:
        """Return the GPUs that a cell gets; None where it has to wait."""
        if not cell.gpus:
            if not self._places:
                return None
            self._places -= 1
            return ()
        fit = [gpu for gpu in self._free if _fits(cell, gpu)][: cell.gpus]
        if len(fit) < cell.gpus:
            return None
        for gpu in fit:
            self._free.remove(gpu)
        return tuple(fit)

    def give_back(self, gpus: Sequence[Gpu]) -> None:
        """Let others have what a cell had."""
        if gpus:
            self._free = [gpu for gpu in self._gpus if gpu in {*self._free, *gpus}]
        else:
            self._places += 1


def _fits(cell: Cell, gpu: Gpu) -> bool:
    return cell.hardware.lower() in gpu.name.lower()
