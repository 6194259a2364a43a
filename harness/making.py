"""Make a checkpoint: calibrate, quantize and write, in one process or in several.

Of a model that is run layer by layer each layer's weights are quantized and written while they are
in memory. What is left, tensors that no decoder layer holds and the scales of inputs, follows at
the end. The bytes do not depend on the way.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artifacts import CalibrationStats, Checkpoint
from harness.calibrate import Sharing, calibrate
from harness.export import Draft
from harness.preflight import Job
from harness.quantize import ResidentQuantizer, quantize
from harness.ranks import ALONE, Ranks, together

if TYPE_CHECKING:
    from torch import Tensor


def calibrate_and_write(job: Job, draft: Draft) -> CalibrationStats:
    """Calibrate, and write the weights that are in memory meanwhile.

    With several ranks, each calibrates with its share of the batches, and quantizes and writes its
    share of the layers.
    """
    if job.recipe.ranks == 1:
        return _calibrate(job, draft, ALONE)
    draft.begin()
    with together(job.recipe.ranks, partial(_be_a_rank, job, draft.into)) as ranks:
        stats = _calibrate(_on_own_device(job, ranks), draft, ranks)
        for written in ranks.gathered({}):
            draft.adopt(written)
    return stats


def complete(job: Job, draft: Draft, stats: CalibrationStats) -> Checkpoint:
    """Quantize and write what is left."""
    source, plan, device = job.source, job.plan, job.recipe.device
    names = (planned.linear.name for planned in plan.quantized)
    done = frozenset(name for name in names if draft.has(f"{name}.weight"))
    return draft.complete(quantize(source, plan, stats, device=device, done=done))


def _be_a_rank(job: Job, into: Path, ranks: Ranks) -> None:
    """Do another process's share."""
    if job.recipe.device == "cuda":
        import torch

        torch.cuda.set_device(ranks.number)
    with Draft(job.source, job.plan, into=into, joins=True) as draft:
        _calibrate(_on_own_device(job, ranks), draft, ranks)
        ranks.gathered(draft.hand_over())


def _calibrate(job: Job, draft: Draft, ranks: Ranks) -> CalibrationStats:
    resident = ResidentQuantizer(job.plan)

    def write(weights: "Mapping[str, Tensor]", amax: Mapping[str, float]) -> None:
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
