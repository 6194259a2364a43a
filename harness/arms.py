"""The two arms of the comparison: a folder is served and scored; the baseline's scores are kept.

The candidate is refused as soon as its deployment shows a fault, before hours of scoring. Where
GPUs are to spare the baseline is measured beside the candidate, in a process of its own: it fills
the store of baselines, where the run then finds it as it would find an older one.
"""

import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from harness import baselines
from harness.artifacts import Deployment, EngineSpec, Finding, Scorecard, Severity, Suite, save
from harness.errors import EngineError, HarnessError, RejectedError
from harness.score import read_arm, score
from harness.serve import serve

DEPLOYMENT_FILE = "deployment.json"
Gpus = tuple[int, ...] | None
"""Which GPUs an arm may use; None for all."""
_log = logging.getLogger("harness.arms")


def measure_candidate(
    engine: EngineSpec, folder: Path, suite: Suite, *, into: Path, gpus: Gpus = None
) -> Scorecard:
    """Serve the checkpoint in `folder` and score it.

    Raises:
        RejectedError: the deployment shows a fault of the checkpoint.
        EngineError: the engine failed.
    """
    _free_gpu_memory()
    with serve(engine, folder, records=into, gpus=gpus) as served:
        save(served.deployment, into / DEPLOYMENT_FILE)
        for finding in _errors(served.deployment):
            message = f"{finding.id}: {finding.message}"
            raise RejectedError(message, reason=finding.reason)
        return score(served, suite, arm="candidate", into=into)


def measure_baseline(
    engine: EngineSpec, model: Path, suite: Suite, *, key: str, gpus: Gpus = None
) -> Path:
    """Return the folder with the baseline's scores; measured now if there are none.

    Raises:
        EngineError: the engine failed, or did not load the unquantized model as it should.
    """
    with baselines.entry(key) as entry:
        if not (entry / "scorecard.json").exists():
            _free_gpu_memory()
            with serve(engine, model, records=entry, gpus=gpus) as served:
                save(served.deployment, entry / DEPLOYMENT_FILE)
                for finding in _errors(served.deployment):
                    message = f"the baseline cannot be trusted, {finding.id}: {finding.message}"
                    raise EngineError(message, reason=finding.reason)
                score(served, suite, arm="baseline", into=entry)
        return entry


def keep_baseline(folder: Path, run: Path) -> Scorecard:
    """Copy a baseline's scores into the run directory, checked, and return its scorecard."""
    baselines.copy_into(folder, run / "baseline")
    return read_arm(run / "baseline").scorecard


def assign_gpus(engine: EngineSpec) -> tuple[Gpus, Gpus]:
    """Return the GPUs of the candidate and of the baseline; None twice where they must share."""
    if engine.name != "vllm" or not engine.device.startswith("cuda"):
        return None, None
    visible = _visible_gpus()
    size = engine.tensor_parallel_size
    if len(visible) < 2 * size:
        return None, None
    return visible[:size], visible[size : 2 * size]


@contextmanager
def baseline_beside(
    engine: EngineSpec, model: Path, suite: Suite, *, key: str, gpus: Gpus
) -> Iterator[None]:
    """Measure the baseline in a process of its own while the context lasts.

    A failure is not reported here: the run asks for the same baseline afterwards, measures it
    again and says what is wrong.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_measure_in_process,
        args=(_Order(engine, model, suite, key, gpus, _log.getEffectiveLevel()),),
        name="baseline",
    )
    process.start()
    finished = False
    try:
        yield
        process.join()
        finished = True
    finally:
        if not finished:
            process.terminate()
            process.join()


class _Order(NamedTuple):
    """What crosses to the other process."""

    engine: EngineSpec
    model: Path
    suite: Suite
    key: str
    gpus: Gpus
    level: int
    """Of logging."""


def _measure_in_process(order: _Order) -> None:
    signal.signal(signal.SIGTERM, _leave)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("baseline | %(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(order.level)
    try:
        measure_baseline(order.engine, order.model, order.suite, key=order.key, gpus=order.gpus)
    except HarnessError as error:
        _log.warning("failed, will be tried again: %s", error)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        _leave(signal.SIGINT, None)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + signum)


def _errors(deployment: Deployment) -> list[Finding]:
    return [f for f in deployment.findings if f.severity is Severity.ERROR]


def _visible_gpus() -> tuple[int, ...]:
    """Return the GPUs that this process may use, by the numbers that CUDA_VISIBLE_DEVICES takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(int(n) for n in names) if all(n.isdigit() for n in names) else ()
    import torch

    return tuple(range(torch.cuda.device_count()))


def _free_gpu_memory() -> None:
    """Give back what calibration held: an engine asks for nearly all of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
