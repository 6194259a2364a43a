"""Estimate how long each stage will take: a range, whose ends are what the machine may do.

Making the checkpoint is tried on the spot (`making_time.py`); servers are in `serving_time.py`. For
the reference engine the rates are fitted to the canary's run on 2 CPU cores; the arithmetic rate of
a CPU is measured, since machines differ most in it. What is not tried is good to a factor of two.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import torch

from harness.preflight.job import Job
from harness.preflight.making_time import making_time
from harness.preflight.serving_time import (
    ABOUT,
    RUNS,
    ServingTime,
    about,
    serving_time,
    smoke_steps,
)
from harness.stopwatch import TimeRange, exactly, of_call


class _Rates(NamedTuple):
    flop: TimeRange
    """Of a multiply-add of the model's forward, over two."""
    start_s: float
    """Of loading a model, besides reading it."""
    step_s: float
    """Of one linear layer for one batch in the emulating engine."""


_CPU = _Rates(exactly(1 / 5e10), start_s=2.0, step_s=4e-4)
_CUDA = _Rates(exactly(1 / 2e14), start_s=5.0, step_s=5e-4)
_VERIFIED_BYTES = 9e8
"""Of the source that one thread compares a second."""
_MOST_VERIFIED = 3.1e9
"""The same of all processes and threads together: measured with 16 cores."""
_SMALL = TimeRange(low_s=0.05, high_s=0.8)
"""Of judging, and of verifying a checkpoint of no size."""
_ONE_ALONE = 0.8
"""Share of a batch's step that the step of one question by itself takes."""
_UNQUANTIZED = 0.7
"""Share of the emulating arm's time that the unquantized arm takes."""
_TOKENS_PER_ITEM = 48
"""Prompt and answer of one item together, as forward passes see them."""
_PRODUCTS = 8
"""So many take longer than a busy system lets a thread run at a time."""
_STEPS_PER_BATCH = 12
"""Forward passes that one batch of items needs."""


def estimate_times(job: Job, *, scored: bool) -> Mapping[str, TimeRange]:
    """Return the estimated wall-clock time of each stage."""
    rates = _rates(job.recipe.device)
    source_bytes = sum(header.num_bytes for header in job.source.tensors.values())
    making = making_time(job)
    verified = min(_MOST_VERIFIED, _VERIFIED_BYTES * (os.cpu_count() or 1))
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


def _here(job: Job, rates: _Rates) -> ServingTime:
    """Return the times of both arms and of the smoke run, answered in this process."""
    flops_per_token = 2 * _active_weights(job)
    num_calls = len({(q.parameter, q.expert) for q in _uses(job)})
    suite = job.recipe.suite
    items = sum(task.items for task in suite.tasks)
    calls = items / suite.batch_size * _STEPS_PER_BATCH * num_calls
    arm_s = items * _TOKENS_PER_ITEM * flops_per_token * rates.flop.low_s + calls * rates.step_s
    return about(
        rates.start_s + arm_s,
        rates.start_s + RUNS * _UNQUANTIZED * arm_s,
        _smoke_s(job, rates),
        slower=slower_of(rates.flop),
    )


def _smoke_s(job: Job, rates: _Rates) -> float:
    """Return the seconds of the smoke run: both arms, each started and asked one by one."""
    steps, share = smoke_steps(job.recipe.suite), _expert_share(job)
    if not steps:
        return 0.0
    calls = sum(share if linear.is_routed else 1.0 for linear in job.inventory.linears)
    return (1 + _UNQUANTIZED) * (rates.start_s + steps * calls * _ONE_ALONE * rates.step_s)


class _Use(NamedTuple):
    parameter: str
    expert: int | None


def _uses(job: Job) -> list[_Use]:
    """Return the linear calls of one forward pass in which every expert is hit."""
    return [_Use(one.parameter.tensor, one.expert) for one in job.inventory.linears]


def _active_weights(job: Job) -> float:
    """Return how many weights one token meets: all dense ones, and those of its experts."""
    share = _expert_share(job)
    return sum(
        one.shape[0] * one.shape[1] * (share if one.is_routed else 1.0)
        for one in job.inventory.linears
    )


def _expert_share(job: Job) -> float:
    """Return the share of a layer's experts that one token meets."""
    config = job.source.config
    text = config.get("text_config", config)
    values = text if isinstance(text, Mapping) else {}
    num_experts = max((one.expert or 0 for one in job.inventory.linears), default=0) + 1
    top_k = values.get("num_experts_per_tok")
    return top_k / num_experts if isinstance(top_k, int) and num_experts > 1 else 1.0


def _rates(device: str) -> _Rates:
    if device.startswith("cuda"):
        return _CUDA
    size = 512
    matrix = torch.ones(size, size)

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            torch.mm(matrix, matrix)

    multiply()
    return _CPU._replace(flop=of_call(multiply).times(1 / (_PRODUCTS * 2 * size**3)))
