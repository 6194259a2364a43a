"""Make a checkpoint: calibrate, quantize and write, in one process or in several.

Of a model that is run layer by layer each layer's weights are quantized and written while they are
in memory, and what is not quantized is written beside. Where a GPU runs the model, a thread brings
its results to the host and hands them to those that write. What is left, such as the scales of
inputs, follows at the end. The bytes do not depend on the way.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artifacts import CalibrationStats, Checkpoint
from harness.calibrate import OnWeights, Sharing, calibrate
from harness.errors import ReasonCode, StageError
from harness.export import Draft
from harness.models import is_out_of_memory, threads_for
from harness.preflight import Job
from harness.quantize import QuantizedStack, ResidentQuantizer, as_they_are, quantize, untouched
from harness.ranks import ALONE, Ranks, together

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger("harness.calibrate")

_UNTOUCHED_THREADS = 4
"""Where a GPU runs the model. Each tensor is hashed by one thread, and two of a model are as big as
all others together that are not quantized."""


def calibrate_and_write(job: Job, draft: Draft) -> CalibrationStats:
    """Calibrate, and write the weights that are in memory meanwhile.

    With several ranks, each calibrates with its share of the batches, and quantizes and writes its
    share of the layers.
    """
    if not job.recipe.calibration.layerwise:
        return _calibrate(job, draft, ALONE)
    if job.recipe.ranks == 1:
        with _writing_untouched(job, draft) as check:
            return _calibrate(job, draft, ALONE, check)
    draft.begin()  # for the others to join
    with together(job.recipe.ranks, partial(_be_a_rank, job, draft.into)) as ranks:
        with _writing_untouched(job, draft) as check:
            stats = _calibrate(_on_own_device(job, ranks), draft, ranks, check)
        for written in ranks.gathered({}):
            draft.adopt(written)
    return stats


def complete(job: Job, draft: Draft, stats: CalibrationStats) -> Checkpoint:
    """Quantize and write what is left."""
    source, plan, device = job.source, job.plan, job.recipe.device
    names = (planned.linear.name for planned in plan.quantized)
    quantized = (name for name in names if draft.has(f"{name}.weight"))
    done = frozenset([*quantized, *filter(draft.has, source.tensors)])
    return draft.complete(quantize(source, plan, stats, device=device, done=done))


@contextmanager
def _writing_untouched(job: Job, draft: Draft) -> Iterator[Callable[[], None]]:
    """Write what is not quantized, in threads, while the context lasts and until it is done.

    Gives a function that raises what went wrong so far.
    """
    draft.begin()
    names, is_over = untouched(job.source, job.plan), threading.Event()

    def write(share: Sequence[str]) -> None:
        for tensor in as_they_are(job.source, share):
            if is_over.is_set():
                return
            draft.write(tensor)

    # A model that runs on the CPU needs the others.
    number = _UNTOUCHED_THREADS if job.recipe.device.startswith("cuda") else 1
    with ThreadPoolExecutor(number, "untouched") as threads:
        writing = [threads.submit(write, names[begin::number]) for begin in range(number)]

        def check() -> None:
            _raise_failed(writing)

        try:
            yield check
        except Exception:
            check()  # damage that was found in the files explains what came of it
            raise
        else:
            started = time.perf_counter()
            wait(writing, return_when=FIRST_EXCEPTION)
            check()
            waited = time.perf_counter() - started
            _log.info("calibrate: waited %.2f s for what is not quantized", waited)
        finally:
            is_over.set()


def _raise_failed(work: Iterable[Future[None]]) -> None:
    for one in work:
        if one.done():
            one.result()


@contextmanager
def _quantizing(job: Job, draft: Draft) -> Iterator[OnWeights]:
    """Give what quantizes weights and writes them; where a GPU computes, a thread does the latter.

    What a GPU has yet to hand over is bounded by two layers.
    """
    resident = ResidentQuantizer(job.plan)

    def put(stacks: Sequence[QuantizedStack]) -> None:
        for stack in stacks:
            for quantized in stack.fetch():
                draft.put(quantized)

    if not job.recipe.device.startswith("cuda"):
        yield lambda weights, amax: put(resident.quantize(weights, amax))
        return
    import torch

    device = torch.device(job.recipe.device)
    with threads_for(device, 1, "hand-over") as threads:
        before = [threads.submit(resident.prepare, device)]

        def finish() -> None:
            while before:
                before.pop().result()

        def hand_over(weights: "Mapping[str, Tensor]", amax: Mapping[str, float]) -> None:
            finish()
            before.append(threads.submit(put, resident.quantize(weights, amax)))

        yield hand_over
        with _explaining_memory():
            finish()


@contextmanager
def _explaining_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            "there is no memory of the host left to bring quantized weights to. Free some, and "
            "type the command again."
        )
        raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY) from error


def _be_a_rank(job: Job, into: Path, ranks: Ranks) -> None:
    """Do another process's share."""
    if job.recipe.device == "cuda":
        import torch

        torch.cuda.set_device(ranks.number)
    with Draft(job.source, job.plan, into=into, joins=True) as draft:
        _calibrate(_on_own_device(job, ranks), draft, ranks)
        ranks.gathered(draft.hand_over())


def _calibrate(
    job: Job, draft: Draft, ranks: Ranks, check: Callable[[], None] = lambda: None
) -> CalibrationStats:
    """Calibrate; `check` raises what has gone wrong elsewhere meanwhile."""
    with _quantizing(job, draft) as quantize_weights:

        def write(weights: "Mapping[str, Tensor]", amax: Mapping[str, float]) -> None:
            check()
            quantize_weights(weights, amax)

        sharing = Sharing(on_weights=write, ranks=ranks)
        return calibrate(job.recipe, job.source, job.inventory, job.plan, sharing)


def _on_own_device(job: Job, ranks: Ranks) -> Job:
    """Give each rank a GPU of its own."""
    if job.recipe.device != "cuda":
        return job
    device = f"cuda:{ranks.number}"
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, device=device))
