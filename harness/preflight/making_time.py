"""How long it will take to make the checkpoint: tried on one layer of each kind, then added up.

What is tried is what the run will do (the model's own forward, the formats' own quantization), on
the machine and the device it will do it on. Only sizes are known of what is read and written.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.algorithms import SecondMoments
from harness.artifacts import PlannedLinear
from harness.calibrate import CalibrationTimes, Workload, most_turns, time_calibration
from harness.cores import num_cores
from harness.export import required_bytes, shard_bytes
from harness.models import Stack
from harness.preflight.job import Job
from harness.quantize import QuantizedStack, ResidentQuantizer
from harness.stopwatch import NOTHING, TimeRange, longest, of_call

_MOST_THREADS = 8
_CPU_RUN = (0.9, 1.8)
"""How much longer a layer takes in a run on a CPU than when it is timed, in the same memory again
and again: 1.0 times (3 B parameters) to 1.8 (the canary) were measured on two cores."""
_GPU_RUN = (1.0, 1.4)
"""The same on a GPU: threads that read and write ask for the interpreter that launches kernels."""
_HANDLED = 6
"""Giving every tensor its place, mapping all layers and writing scales and index take as long as
going through all tensors this many times."""
_FINISH = TimeRange(low_s=0.03, high_s=0.4)
"""Of the index, of what is copied and of giving the folder its name."""
_ONE_BY_ONE = 1.5
"""How much longer it takes to quantize matrix by matrix than a layer's together."""


class MakingTime(NamedTuple):
    """Estimated times of the two stages."""

    calibrate: TimeRange
    export: TimeRange


def making_time(job: Job) -> MakingTime:
    """Estimate the times of calibration and export, by running a little of them.

    Raises:
        ModelError: the model cannot be built or read.
        StageError: the memory is not enough for one sample.
    """
    times, hashed_byte = _time(job), _hashed_byte()
    source_bytes = sum(header.num_bytes for header in job.source.tensors.values())
    layer_bytes = sum(one.num_layers * one.num_bytes for one in times.layers)
    reading, rest = (times.byte.times(n) for n in (layer_bytes, source_bytes - layer_bytes))
    written = required_bytes(job.source, job.plan)
    handled = of_call(lambda: required_bytes(job.source, job.plan))
    start = times.start + handled.times(_HANDLED)
    hashing = hashed_byte.times(written / min(_MOST_THREADS, num_cores()))
    running, quantizing = _computing(job, times)
    if not job.recipe.calibration.layerwise:
        calibrate = start + reading.times(2) + running
        rest += reading + quantizing.times(_ONE_BY_ONE)
        return MakingTime(calibrate, _FINISH + rest + hashing)
    share = layer_bytes / source_bytes
    if _on_gpu(job):  # which computes meanwhile; a disk writes no faster than it reads
        moving = reading + times.byte.times(share * written)
        calibrate = start + longest(running + quantizing, moving, hashing.times(share))
    else:
        calibrate = start + running + quantizing + reading + hashing.times(share)
    last_file = hashed_byte.times(min(shard_bytes(written), written))
    ending = longest(last_file, hashing.times(1 - share))
    return MakingTime(calibrate, _FINISH + rest + ending)


def _computing(job: Job, times: CalibrationTimes) -> tuple[TimeRange, TimeRange]:
    """Return the time of running all layers, and of quantizing their weights."""
    extent, ranks = job.extent, job.recipe.ranks
    batches, tokens = math.ceil(extent.num_batches / ranks), extent.num_tokens // ranks
    # Once for the ranges and once quantized; twice in each turn, once on either stream.
    often = 2 + 2 * most_turns(job.plan) if job.plan.algorithm.follows_quantized else 1
    running = (one.run(batches, tokens).times(one.num_layers * often) for one in times.layers)
    quantizing = (one.quantized.times(one.num_layers / ranks) for one in times.layers)
    slower = _GPU_RUN if _on_gpu(job) else _CPU_RUN
    return sum(running, NOTHING).times(*slower), sum(quantizing, NOTHING).times(*slower)


def _on_gpu(job: Job) -> bool:
    return job.recipe.device.startswith("cuda")


def _time(job: Job) -> CalibrationTimes:
    quantizer = ResidentQuantizer(job.plan)
    waiting: list[QuantizedStack] = []
    whole, device = job.plan.algorithm.needs_whole_inputs, job.recipe.device
    aims = job.plan.algorithm.follows_quantized

    def moments_of(members: Sequence[PlannedLinear]) -> SecondMoments:
        """Say that no two input features go together: what they are like changes no time."""
        width = members[0].linear.shape[1]
        found = SecondMoments.of_noise(len(members), width, whole=whole, device=device)
        return found._replace(cross=found.sums) if aims else found

    def quantize(stacks: Sequence[Stack], amax: Mapping[str, float]) -> None:
        if _on_gpu(job):  # whose run hands a layer over before the next
            waiting.clear()
        waiting.extend(quantizer.quantize(stacks, amax, moments_of))

    workload = Workload(job.extent, quantize)
    return time_calibration(job.recipe, job.source, job.inventory, job.plan, workload)


def _hashed_byte() -> TimeRange:
    """Return the time in which one thread hashes a byte."""
    content = bytes(32 << 20)
    return of_call(lambda: hashlib.sha256(content).digest()).times(1 / len(content))
