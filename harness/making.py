"""Make a checkpoint: calibrate, quantize and write, in one process or in several.

Of a model that is run layer by layer each layer's weights are quantized and written while they are
in memory, and what is not quantized is written beside. What is left, such as the scales of inputs,
follows at the end. The bytes do not depend on the way.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artifacts import CalibrationStats, Checkpoint
from harness.calibrate import Sharing, calibrate
from harness.export import Draft
from harness.preflight import Job
from harness.quantize import ResidentQuantizer, quantize, untouched
from harness.ranks import ALONE, Ranks, together

if TYPE_CHECKING:
    from torch import Tensor


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
    """Write what is not quantized, in a thread, while the context lasts and until it is done.

    Gives a function that raises what went wrong so far.
    """
    draft.begin()
    is_over = threading.Event()

    def write() -> None:
        for tensor in untouched(job.source, job.plan):
            if is_over.is_set():
                return
            draft.write(tensor)

    with ThreadPoolExecutor(1, "untouched") as threads:
        writing = threads.submit(write)

        def check() -> None:
            if writing.done():
                writing.result()

        try:
            yield check
            writing.result()
        except Exception:
            check()  # damage that was found in the files explains what came of it
            raise
        finally:
            is_over.set()


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
    resident = ResidentQuantizer(job.plan)

    def write(weights: "Mapping[str, Tensor]", amax: Mapping[str, float]) -> None:
        check()
        for quantized in resident.quantize(weights, amax):
            draft.put(quantized)

    sharing = Sharing(on_weights=write, ranks=ranks)
    return calibrate(job.recipe, job.source, job.inventory, job.plan, sharing)


def _on_own_device(job: Job, ranks: Ranks) -> Job:
    """Give each rank a GPU of its own."""
    if job.recipe.device != "cuda":
        return job
    device = f"cuda:{ranks.number}"
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, device=device))
