"""How long it will take to make the checkpoint: tried on one layer of each kind, then added up.

What is tried is what the run will do (the model's own forward, the formats' own quantization), on
the machine and the device it will do it on. Only sizes are known of what is read and written.
"""

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.calibrate import CalibrationTimes, Workload, time_calibration
from harness.export import required_bytes, shard_bytes
from harness.models import Stack
from harness.preflight.job import Job
from harness.quantize import QuantizedStack, ResidentQuantizer

_MOST_THREADS = 8
_CPU_RUN = 1.25
"""How much longer a layer takes in a run on a CPU than when it is timed, in the same memory again
and again: from 1.0 times (3 B parameters) to 1.6 (the smallest) were measured on two cores."""
_GPU_RUN = 1.15
"""The same on a GPU: threads that read and write ask for the interpreter that launches kernels."""
_HANDLED = 6
"""Giving every tensor its place, mapping all layers and writing scales and index take as long as
going through all tensors this many times."""
_FINISH_S = 0.1
"""Of the index, of what is copied and of giving the folder its name."""
_ONE_BY_ONE = 1.5
"""How much longer it takes to quantize matrix by matrix than a layer's together."""


class MakingTime(NamedTuple):
    """Estimated seconds of the two stages."""

    calibrate_s: float
    export_s: float


def making_time(job: Job) -> MakingTime:
    """Estimate the times of calibration and export, by running a little of them.

    Raises:
        ModelError: the model cannot be built or read.
        StageError: the memory is not enough for one sample.
    """
    times, hash_rate = _time(job), _hash_rate()
    source_bytes = sum(header.num_bytes for header in job.source.tensors.values())
    layer_bytes = sum(one.num_layers * one.num_bytes for one in times.layers)
    reading, rest = (n / times.read_rate for n in (layer_bytes, source_bytes - layer_bytes))
    started = time.perf_counter()
    written = required_bytes(job.source, job.plan)
    start_s = times.start_s + _HANDLED * (time.perf_counter() - started)
    hashing = written / (hash_rate * min(_MOST_THREADS, os.cpu_count() or 1))
    running, quantizing = _computing(job, times)
    if not job.recipe.calibration.layerwise:
        calibrate_s = start_s + 2 * reading + running
        rest += reading + _ONE_BY_ONE * quantizing
        return MakingTime(calibrate_s, _FINISH_S + rest + hashing)
    share = layer_bytes / source_bytes
    if _on_gpu(job):  # which computes meanwhile; a disk writes no faster than it reads
        moving = reading + share * written / times.read_rate
        calibrate_s = start_s + max(running + quantizing, moving, share * hashing)
    else:
        calibrate_s = start_s + running + quantizing + reading + share * hashing
    last_file = min(shard_bytes(written), written) / hash_rate
    return MakingTime(calibrate_s, _FINISH_S + rest + max(last_file, (1 - share) * hashing))


def _computing(job: Job, times: CalibrationTimes) -> tuple[float, float]:
    """Return the seconds of running all layers, and of quantizing their weights."""
    extent, ranks = job.extent, job.recipe.ranks
    batches, tokens = math.ceil(extent.num_batches / ranks), extent.num_tokens // ranks
    running = sum(one.num_layers * one.run_s(batches, tokens) for one in times.layers)
    quantizing = sum(one.num_layers * one.quantized_s for one in times.layers) / ranks
    slower = _GPU_RUN if _on_gpu(job) else _CPU_RUN
    return slower * running, slower * quantizing


def _on_gpu(job: Job) -> bool:
    return job.recipe.device.startswith("cuda")


def _time(job: Job) -> CalibrationTimes:
    quantizer = ResidentQuantizer(job.plan)
    waiting: list[QuantizedStack] = []

    def quantize(stacks: Sequence[Stack], amax: Mapping[str, float]) -> None:
        if _on_gpu(job):  # whose run hands a layer over before the next
            waiting.clear()
        waiting.extend(quantizer.quantize(stacks, amax))

    workload = Workload(job.extent, quantize)
    return time_calibration(job.recipe, job.source, job.inventory, job.plan, workload)


def _hash_rate() -> float:
    """Return the bytes that one thread hashes a second."""
    content = bytes(32 << 20)
    started = time.perf_counter()
    hashlib.sha256(content).digest()
    return len(content) / (time.perf_counter() - started)
