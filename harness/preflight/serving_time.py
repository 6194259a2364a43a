"""How long a vLLM server takes to start and to answer a suite, and what emulation adds to it.

A GPU's rates were measured on an H200 with the Qwen3.6-35B-A3B shape (evals/LEDGER.md: "A
checkpoint in vLLM, by arithmetic", 64 prompts at once); a step takes as long as its layers, so they
are counted in layers times tokens. Small models wait for HTTP instead. Lengths of answers are not
known beforehand, only how long they may become: all of it is good to about a factor of two, and
said as a range.
"""

from typing import NamedTuple

from harness.artifacts import EngineSpec, Suite
from harness.models import Source
from harness.preflight.asking_time import (
    AT_ONCE,
    CPU_ITEMS,
    CPU_START_S,
    CPU_TOKENS,
    EMULATED,
    RUNS,
    START_S,
    TENSOR_S,
    TENSORS,
    answering,
    num_answers,
    num_layers,
    requests_of,
    speed_of,
)
from harness.preflight.engine import demands_of
from harness.preflight.job import Job
from harness.serve import has_emulation
from harness.stopwatch import TimeRange, exactly

ABOUT = (0.6, 1.7)
"""How many times longer it may take than rates that were measured elsewhere foretell."""
_MANY_STARTS = 10
"""Of the time that a start takes. One candidate in ten that only a comparison shows to be broken
pays for as many starts."""


class ServingTime(NamedTuple):
    """Estimated times, each with the start of its servers."""

    candidate: TimeRange
    baseline: TimeRange
    smoke: TimeRange


def serving_time(job: Job, slower: float = 1.0) -> ServingTime:
    """Estimate the times of both arms and of the smoke run on vLLM.

    Args:
        job: what will be served.
        slower: how many times longer than by itself a step takes on this machine as it is now.
    """
    suite, engine = job.recipe.suite, job.recipe.engine
    steps = smoke_steps(suite)
    if not engine.device.startswith("cuda"):
        answers_s = num_answers(suite) / CPU_ITEMS
        smoke_s = 2 * (CPU_START_S + steps / CPU_TOKENS) if steps else 0.0
        baseline_s = CPU_START_S + RUNS * answers_s
        return about(CPU_START_S + answers_s, baseline_s, smoke_s, slower=slower)
    loading = START_S + TENSOR_S * TENSORS * len(job.plan.quantized)
    plain, candidate = speed_of(engine), speed_of(engine, emulated=_is_emulated(job))
    # What Marlin hides is asked of an emulation first.
    starts = [(START_S, plain), (loading, candidate)]
    if _has_emulation(job) and not _is_emulated(job):
        starts.append((loading, EMULATED))
    one_step, asked = AT_ONCE * num_layers(job.source), requests_of(suite)
    smoke_s = sum(start_s + steps * one_step / speed.answer for start_s, speed in starts)
    return about(
        loading + answering(job.source, asked, candidate),
        START_S + RUNS * answering(job.source, asked, plain),
        smoke_s if steps else 0.0,
    )


def outlasts_its_start(engine: EngineSpec, suite: Suite, baseline: Source) -> bool:
    """Return whether a baseline answers for so long that one more start of it is soon paid back.

    The engine in this process starts in seconds, so there it always does.
    """
    if engine.name == "reference":
        return True
    if engine.device.startswith("cuda"):
        start_s, asking_s = START_S, answering(baseline, requests_of(suite), speed_of(engine))
    else:
        start_s, asking_s = CPU_START_S, num_answers(suite) / CPU_ITEMS
    return RUNS * asking_s > _MANY_STARTS * start_s


def about(
    candidate_s: float, baseline_s: float, smoke_s: float, *, slower: float = 1.0
) -> ServingTime:
    """Return what rates that were measured elsewhere foretell, on a machine that is busy or not."""
    least, most = ABOUT
    seconds = candidate_s, baseline_s, smoke_s
    return ServingTime(*(exactly(one).times(least, most * slower) for one in seconds))


def smoke_steps(suite: Suite) -> int:
    """Return the forward passes of the smoke set, of which some come one by one."""
    if suite.smoke is None:
        return 0
    asks = suite.smoke.asks
    alone = sum(ask.max_tokens for ask in suite.smoke.alone)
    return len(suite.smoke.passages) + alone + max((ask.max_tokens for ask in asks), default=0)


def declared_times(job: Job) -> float | None:
    """Return how many times longer the candidate answers with declared than deployed numerics.

    None where they are computed by the same kernels.
    """
    if not _has_emulation(job):
        return None
    asked = requests_of(job.recipe.suite)
    deployed = answering(job.source, asked, speed_of(job.recipe.engine))
    return answering(job.source, asked, EMULATED) / deployed


def _has_emulation(job: Job) -> bool:
    return has_emulation(job.recipe.engine, demands_of(job.plan))


def _is_emulated(job: Job) -> bool:
    return job.recipe.engine.numerics == "declared" and _has_emulation(job)
