"""The door: which engine serves, and whether this machine can run it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from harness.artifacts import EngineSpec
from harness.errors import PrerequisiteError
from harness.serve.reference import Served, serve_reference

_ENGINES = {"reference": serve_reference}
_DTYPES = ("float32", "bfloat16", "float16")


@contextmanager
def serve(engine: EngineSpec, directory: Path) -> Iterator[Served]:
    """Serve the checkpoint in `directory`, quantized or not, until the context ends.

    Raises:
        PrerequisiteError: this machine cannot run the engine.
        ModelError: the folder is no checkpoint.
        EngineError: the engine cannot load it; a missing scale is never replaced by a default.
    """
    check_engine(engine)
    with _ENGINES[engine.name](engine, directory) as served:
        yield served


def check_engine(engine: EngineSpec) -> None:
    """Refuse an engine that this version or this machine cannot run.

    Raises:
        PrerequisiteError: with what to choose instead.
    """
    if engine.name not in _ENGINES:
        message = (
            f"engine '{engine.name}' is not available in this version. "
            f"Use --engine {' or '.join(_ENGINES)}."
        )
        raise PrerequisiteError(message)
    if engine.dtype not in _DTYPES:
        message = f"the reference engine has no type '{engine.dtype}'. Use {', '.join(_DTYPES)}."
        raise PrerequisiteError(message)
    try:
        device = torch.device(engine.device)
    except RuntimeError as error:
        message = f"'{engine.device}' is no torch device. Use cpu, cuda or cuda:1."
        raise PrerequisiteError(message) from error
    is_absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if is_absent or device.type not in {"cpu", "cuda"}:
        message = (
            f"device '{engine.device}' is not there: torch sees {torch.cuda.device_count()} CUDA "
            "device(s). Use --device cpu."
        )
        raise PrerequisiteError(message)
