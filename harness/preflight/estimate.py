"""Estimate how long each stage will take: a range, whose ends are what the machine may do.

Making the checkpoint is tried on the spot (`making_time.py`); servers are in `serving_time.py`. For
the reference engine the rates are fitted to the canary's run on 2 CPU cores; the arithmetic rate of
a CPU is measured, since machines differ most in it. What is not tried is good to a factor of two.
"""

from collections.abc import Mapping

import torch

from harness.cores import num_cores
from harness.preflight.asking_time import (
    CPU,
    CUDA,
    RUNS,
    UNQUANTIZED,
    Asked,
    Rates,
    arm_seconds,
    expert_share,
)
from harness.preflight.job import Job
from harness.preflight.making_time import making_time
from harness.preflight.serving_time import (
    ABOUT,
    ServingTime,
    about,
    serving_time,
    smoke_steps,
)
from harness.stopwatch import TimeRange, exactly, of_call

_VERIFIED_BYTES = 9e8
"""Of the source that one thread compares a second."""
_MOST_VERIFIED = 3.1e9
"""The same of all processes and threads together: measured with 16 cores."""
_SMALL = TimeRange(low_s=0.05, high_s=0.8)
"""Of judging, and of verifying a checkpoint of no size."""
_ONE_ALONE = 0.8
"""Share of a batch's step that the step of one question by itself takes."""
_PRODUCTS = 8
"""So many take longer than a busy system lets a thread run at a time."""


def estimate_times(job: Job, *, scored: bool) -> Mapping[str, TimeRange]:
    """Return the estimated wall-clock time of each stage."""
    rates = _rates(job.recipe.device)
    source_bytes = sum(header.num_bytes for header in job.source.tensors.values())
    making = making_time(job)
    verified = min(_MOST_VERIFIED, _VERIFIED_BYTES * num_cores())
    times = {
        "calibrate": making.calibrate,
        "export": making.export,
        "verify": exactly(source_bytes / verified).times(*ABOUT) + _SMALL,
    }
    if scored:
        is_here = job.recipe.engine.name == "reference"
        serving = _here(job, rates) if is_here else serving_time(job, slower_of(rates.flop))
        times |= {
            "smoke": serving.smoke,
            "score candidate": serving.candidate,
            "score baseline": serving.baseline,
            "judge": _SMALL,
        }
    return times


def slower_of(flop: TimeRange) -> float:
    """Return how many times longer than by itself a step takes on this machine as it is now."""
    return flop.high_s / flop.low_s


def _here(job: Job, rates: Rates) -> ServingTime:
    """Return the times of both arms and of the smoke run, answered in this process."""
    arm_s = arm_seconds(
        Asked(job.recipe.engine, job.recipe.suite, job.source, job.inventory), rates
    )
    return about(
        rates.start_s + arm_s,
        rates.start_s + RUNS * UNQUANTIZED * arm_s,
        _smoke_s(job, rates),
        slower=slower_of(rates.flop),
    )


def _smoke_s(job: Job, rates: Rates) -> float:
    """Return the seconds of the smoke run: both arms, each started and asked one by one."""
    steps, share = smoke_steps(job.recipe.suite), expert_share(job.source, job.inventory)
    if not steps:
        return 0.0
    calls = sum(share if linear.is_routed else 1.0 for linear in job.inventory.linears)
    return (1 + UNQUANTIZED) * (rates.start_s + steps * calls * _ONE_ALONE * rates.step_s)


def _rates(device: str) -> Rates:
    if device.startswith("cuda"):
        return CUDA
    size = 512
    matrix = torch.ones(size, size)

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            torch.mm(matrix, matrix)

    multiply()
    return CPU._replace(flop=of_call(multiply).times(1 / (_PRODUCTS * 2 * size**3)))
