"""What the devices of this machine have: which GPUs each arm gets, and how much memory is free."""

import atexit
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from harness.artifacts import EngineSpec

Gpus = tuple[int, ...] | None
"""Which GPUs an arm may use; None for all."""
_CGROUP = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Bytes of a device; of several GPUs those of the one that has the least."""

    free: int
    total: int


def begin_on(device: str) -> None:
    """Let a thread make a GPU's context, which takes seconds, while models' classes are imported.

    It loads the library of products too. What goes wrong there goes wrong again where the GPU is
    first used, which says it.
    """

    def begin() -> None:
        with suppress(RuntimeError, AssertionError):  # torch's, the second without CUDA
            one = torch.zeros(16, 16, dtype=torch.bfloat16, device=device)
            torch.mm(one, one)

    if device.startswith("cuda"):
        thread = threading.Thread(target=begin, name="context", daemon=True)
        thread.start()
        atexit.register(thread.join)  # one that is cut off there takes the process's exit code away


def assign_gpus(engine: EngineSpec) -> tuple[Gpus, Gpus]:
    """Return the GPUs of the candidate and of the baseline; None twice where they must share."""
    if engine.name != "vllm" or not engine.device.startswith("cuda"):
        return None, None
    visible = visible_gpus()
    size = engine.tensor_parallel_size
    if len(visible) < 2 * size:
        return None, None
    return visible[:size], visible[size : 2 * size]


def visible_gpus() -> tuple[int, ...]:
    """Return the GPUs that this process may use, by the numbers that CUDA_VISIBLE_DEVICES takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(int(n) for n in names) if all(n.isdigit() for n in names) else ()
    return tuple(range(torch.cuda.device_count()))


def gpu_memory(places: Sequence[int]) -> Memory | None:
    """Return the memory of GPUs, numbered as torch does; None where they cannot be asked."""
    if not places or torch.cuda.device_count() <= max(places):
        return None
    return Memory(*min(torch.cuda.mem_get_info(place) for place in places))


def host_memory() -> Memory:
    """Return the host's memory, or what the limit of this process's group leaves of it."""
    found = psutil.virtual_memory()
    limit, used = _number("memory.max"), _number("memory.current")
    if limit is None or used is None:
        return Memory(found.available, found.total)
    # Pages of files are counted as used, and given up as soon as somebody needs them.
    used -= min(_inactive_pages(), used)
    return Memory(min(found.available, max(limit - used, 0)), min(found.total, limit))


def halves_of_cores() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two disjoint groups of the CPU cores that this process may use, of the same size.

    Of threads that share a core one each, as vLLM chooses by itself, if that leaves two.
    """
    allowed = sorted(os.sched_getaffinity(0))
    first = [number for number in allowed if number == min(_siblings(number, allowed))]
    chosen = first if len(first) > 1 else allowed
    half = len(chosen) // 2
    return tuple(chosen[:half]), tuple(chosen[half : 2 * half])


def _siblings(number: int, allowed: Sequence[int]) -> set[int]:
    """Return the threads of a core, as far as they may be used."""
    path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    try:
        parts = path.read_text(encoding="ascii").strip().split(",")
    except OSError:
        return {number}
    found = {number}
    for low, _, high in (part.partition("-") for part in parts):
        found |= set(range(int(low), int(high or low) + 1))
    return found & set(allowed)


def _number(name: str) -> int | None:
    try:
        text = (_CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_pages() -> int:
    try:
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split() for line in lines if len(line.split()) == 2)  # noqa: PLR2004 -- name, value
    return int(values.get("inactive_file", 0))
