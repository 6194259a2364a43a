"""Print how many functions have one expert's weight in hand on its way from a file to a shard.

    python -m scripts.weight_way [--model canary] [--tree DIR] [--record]

A real run is traced line by line. A function of harness touches the weight if one of its arguments,
its variables or what it returns lies in the same memory as the weight that was read, or as what is
stored of it (its codes and their scales): a tensor, a buffer, or a container of such. Lambdas and
comprehensions count as the function that they stand in, functions within functions by themselves.
Running the layer on text is not on this way, and reading the shard back comes after it.

`--tree` is another checkout of harness, such as one of an older commit, whose code is traced.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import harness
from harness import pipeline
from harness.models import TensorReader, open_source, read_inventory
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory
from harness.runs import run_job

ROOT = f"{Path(harness.__file__).parent}/"
_RUNS_A_LAYER = nn.Module._wrapped_call_impl.__code__  # noqa: SLF001  # where every module is called
_NOT_ON_THE_WAY = ("read_file", "tap_linears")
"""Of the shard, when it is written; of the layer, when it runs."""
_SUFFIXES = ("weight", "weight_scale")
_CONTAINERS = (dict, list, tuple, set, deque)
_DEPTH = 5


class Tracer:
    """Collects which memory each function of harness holds."""

    def __init__(self, looked_for: Sequence[bytes]) -> None:
        """Take what is in the memory that is meant."""
        self._looked_for = looked_for
        self._held: dict[CodeType, set[tuple[int, int]]] = defaultdict(set)
        self._homes: set[tuple[int, int]] = set()
        """Where something that is looked for has been seen."""
        self._kept: list[object] = []
        """So that no memory is used for something else."""
        self._elsewhere = threading.local()

    def start(self) -> None:
        """Look from now on, in this thread and in those that it starts."""
        threading.settrace(self._call)
        sys.settrace(self._call)

    def stop(self) -> None:
        """Look no more."""
        sys.settrace(None)
        threading.settrace(None)

    def touching(self) -> set[tuple[str, str]]:
        """Return the files and functions that have touched it."""
        return {
            (code.co_filename.removeprefix(ROOT), _name(code))
            for code, ranges in self._held.items()
            if any(b < end and e > begin for b, e in ranges for begin, end in self._homes)
        }

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401  # a function like this
        code = frame.f_code
        if code is _RUNS_A_LAYER or (code.co_name in _NOT_ON_THE_WAY and _is_ours(code)):
            self._elsewhere.depth = getattr(self._elsewhere, "depth", 0) + 1
            return self._come_back
        return self._line(frame, event, arg) if _is_ours(code) else None

    def _come_back(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401  # as above
        del frame, arg
        if event == "return":
            self._elsewhere.depth -= 1
        return self._come_back

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401  # as above
        if not getattr(self._elsewhere, "depth", 0):
            values = [value for name, value in frame.f_locals.items() if name != "self"]
            with torch._C.DisableTorchFunction():  # noqa: SLF001  # looks at none
                for leaf in _leaves([*values, arg if event == "return" else None]):
                    self._look(frame.f_code, leaf)
        return self._line

    def _look(self, code: CodeType, leaf: Tensor | memoryview) -> None:
        begin, end = _memory(leaf)
        if (begin, end) in self._held[code]:
            return
        self._held[code].add((begin, end))
        self._kept.append(leaf)
        content = ctypes.string_at(begin, end - begin)
        for wanted in self._looked_for:
            if (at := content.find(wanted)) >= 0:
                self._homes.add((begin + at, begin + at + len(wanted)))


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(ROOT)


def _name(code: CodeType) -> str:
    name = code.co_qualname
    for inner in ("genexpr", "listcomp", "dictcomp", "setcomp", "lambda"):
        name = name.replace(f".<locals>.<{inner}>", "")
    return name


def _leaves(value: Any, depth: int = 0) -> Iterator[Tensor | memoryview]:  # noqa: ANN401  # whatever a variable holds
    if isinstance(value, Tensor):
        yield from [value] if not value.is_meta and value.numel() else ()
    elif isinstance(value, memoryview):
        yield from [value] if value.nbytes else ()
    elif depth < _DEPTH:
        parts = value.values() if isinstance(value, dict) else value
        for part in parts if isinstance(value, _CONTAINERS) else ():
            yield from _leaves(part, depth + 1)


def _memory(leaf: Tensor | memoryview) -> tuple[int, int]:
    if isinstance(leaf, memoryview):
        begin = np.frombuffer(leaf, dtype=np.uint8).ctypes.data
        return begin, begin + leaf.nbytes
    steps = sum((size - 1) * step for size, step in zip(leaf.shape, leaf.stride(), strict=True))
    return leaf.data_ptr(), leaf.data_ptr() + (steps + 1) * leaf.element_size()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def touching(model: str, folder: Path, **options: object) -> set[tuple[str, str]]:
    """Return the files and functions of harness that touch one expert's weight.

    Args:
        model: a mixture of experts.
        folder: where the checkpoints go.
        options: of the quantization, as they are typed.
    """
    source = open_source(model)
    experts = [one for one in read_inventory(source).linears if one.expert is not None]
    chosen = next(one for one in experts if one.expert == 1 and "layers.1." in one.name)
    with TensorReader(source) as reader:
        looked_for = [_bytes(reader.matrix(chosen.source))]
    before = _quantize(model, folder / "before", None, options)
    stored: dict[str, Tensor] = {}
    for path in (folder / "before" / "checkpoint").glob("*.safetensors"):
        stored |= load_file(path)
    looked_for += [_bytes(stored[f"{chosen.name}.{suffix}"]) for suffix in _SUFFIXES]
    tracer = Tracer(looked_for)
    if before != _quantize(model, folder / "traced", tracer, options):
        message = "the run that was traced has written other files"
        raise ValueError(message)
    return {(file, name) for file, name in tracer.touching() if not file.startswith("verify/")}


def _quantize(
    model: str, into: Path, tracer: Tracer | None, options: Mapping[str, object]
) -> Mapping[str, str]:
    """Return the sha256 of all files."""
    asked: dict[str, Any] = {"qformat": "nvfp4", "layerwise": True, "device": "cpu", **options}
    job = preflight(Request(model=model, **asked), into=into, scored=False)

    def work(job: Job, run: RunDirectory) -> None:
        if tracer is not None:
            tracer.start()
        try:
            pipeline.make_checkpoint(job, run)
        finally:
            if tracer is not None:
                tracer.stop()

    made = run_job(job, into=into, work=work)[1].checkpoint
    return made.sha256 if made is not None else {}


def main() -> None:
    """Trace a run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="canary")
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    if arguments.tree is not None:
        command = [sys.executable, __file__, "--model", arguments.model]
        environment = os.environ | {"PYTHONPATH": str(arguments.tree)}
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    with tempfile.TemporaryDirectory() as folder:
        found = touching(arguments.model, Path(folder), calib_size=8)
    print(*(f"{file}: {name}" for file, name in sorted(found)), sep="\n")
    values = {"files": len({file for file, _ in found}), "functions": len(found)}
    print(", ".join(f"{value} {what}" for what, value in values.items()))
    if arguments.record:
        from scripts import ledger  # noqa: PLC0415 -- a --tree may have none

        claim = "Code that touches one expert's weight from file to shard"
        ledger.append(claim, command="python -m scripts.weight_way --record", values=values)


if __name__ == "__main__":
    main()
