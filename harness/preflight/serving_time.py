"""How long a vLLM server takes to start and to answer a suite, and what emulation adds to it.

A GPU's rates were measured on an H200 with the Qwen3.6-35B-A3B shape (evals/LEDGER.md: "A
checkpoint in vLLM, by arithmetic", 64 prompts at once); a step takes as long as its layers, so they
are counted in layers times tokens. Small models wait for HTTP instead. Lengths of answers are not
known beforehand, only how long they may become: all of it is good to about a factor of two, and
said as a range.
"""

from collections.abc import Mapping
from typing import NamedTuple

from harness import score
from harness.artifacts import EngineSpec, Suite
from harness.baselines import RERUN_SHARE
from harness.models import Source
from harness.preflight.engine import demands_of
from harness.preflight.job import Job
from harness.serve import has_emulation
from harness.stopwatch import TimeRange, exactly


class Speed(NamedTuple):
    """Layers times tokens a second, of many requests at once."""

    prompt: float
    answer: float


DEPLOYED = Speed(prompt=9.3e5, answer=6.3e4)
EAGER = Speed(prompt=9.0e5, answer=2.3e4)
"""Where `enforce-eager` leaves out CUDA graphs."""
EMULATED = Speed(prompt=1.1e6, answer=2.3e4)
"""Measured without CUDA graphs: with them it is this or faster."""
_AT_ONCE = 64
"""Requests that the rates were measured with; one by itself waits as long for a token."""
_REQUESTS = 350.0
"""Requests a second that vLLM takes over HTTP, however small the model."""
START_S = 60.0
"""From nothing to the first answer, once kernels are compiled; 100 s more the first time."""
TENSOR_S = 3.6e-4
"""Of loading a tensor: an expert's weights are four of them for each projection."""
_TENSORS = 4
_CHOICES = 4
"""Requests that an item asks whose answer is chosen."""
_PROMPT_TOKENS = 100
"""Of a question, and of each worked example before it."""
_USED = 0.5
"""Share of its budget that an answer uses."""

_CPU_START_S = 75.0
_CPU_ITEMS = 12.0
"""Items of the canary's size answered a second on two cores."""
_CPU_TOKENS = 20.0
"""Tokens a second of one answer by itself, there."""
ABOUT = (0.6, 1.7)
"""How many times longer it may take than rates that were measured elsewhere foretell."""
RUNS = 1 + RERUN_SHARE
"""Of the baseline: once, and a share of its items again."""
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
        answering = sum(task.items for task in suite.tasks) / _CPU_ITEMS
        smoke_s = 2 * (_CPU_START_S + steps / _CPU_TOKENS) if steps else 0.0
        baseline_s = _CPU_START_S + RUNS * answering
        return about(_CPU_START_S + answering, baseline_s, smoke_s, slower=slower)
    loading = START_S + TENSOR_S * _TENSORS * len(job.plan.quantized)
    plain, candidate = _speed(engine), _speed(engine, emulated=_is_emulated(job))
    # What Marlin hides is asked of an emulation first.
    starts = [(START_S, plain), (loading, candidate)]
    if _has_emulation(job) and not _is_emulated(job):
        starts.append((loading, EMULATED))
    one_step, asked = _AT_ONCE * _layers(job.source), _asked(suite)
    smoke_s = sum(start_s + steps * one_step / speed.answer for start_s, speed in starts)
    return about(
        loading + _answering(job.source, asked, candidate),
        START_S + RUNS * _answering(job.source, asked, plain),
        smoke_s if steps else 0.0,
    )


def outlasts_its_start(engine: EngineSpec, suite: Suite, baseline: Source) -> bool:
    """Return whether a baseline answers for so long that one more start of it is soon paid back.

    The engine in this process starts in seconds, so there it always does.
    """
    if engine.name == "reference":
        return True
    if engine.device.startswith("cuda"):
        start_s, answering = START_S, _answering(baseline, _asked(suite), _speed(engine))
    else:
        start_s, answering = _CPU_START_S, sum(task.items for task in suite.tasks) / _CPU_ITEMS
    return RUNS * answering > _MANY_STARTS * start_s


def about(
    candidate_s: float, baseline_s: float, smoke_s: float, *, slower: float = 1.0
) -> ServingTime:
    """Return what rates that were measured elsewhere foretell, on a machine that is busy or not."""
    least, most = ABOUT
    seconds = candidate_s, baseline_s, smoke_s
    return ServingTime(*(exactly(one).times(least, most * slower) for one in seconds))


def smoke_steps(suite: Suite) -> int:
    """Return the forward passes of the smoke set, whose prompts are asked one by one."""
    if suite.smoke is None:
        return 0
    return len(suite.smoke.passages) + sum(ask.max_tokens for ask in suite.smoke.asks)


def declared_times(job: Job) -> float | None:
    """Return how many times longer the candidate answers with declared than deployed numerics.

    None where they are computed by the same kernels.
    """
    if not _has_emulation(job):
        return None
    asked = _asked(job.recipe.suite)
    deployed = _answering(job.source, asked, _speed(job.recipe.engine))
    return _answering(job.source, asked, EMULATED) / deployed


def _has_emulation(job: Job) -> bool:
    return has_emulation(job.recipe.engine, demands_of(job.plan))


def _is_emulated(job: Job) -> bool:
    return job.recipe.engine.numerics == "declared" and _has_emulation(job)


def _speed(engine: EngineSpec, *, emulated: bool = False) -> Speed:
    if emulated:
        return EMULATED
    given = {argument.removeprefix("--").replace("_", "-") for argument in engine.arguments}
    return EAGER if "enforce-eager=true" in given else DEPLOYED


class _Asked(NamedTuple):
    """What a suite asks of a server."""

    requests: int
    prompt_tokens: float
    answer_tokens: float


def _asked(suite: Suite) -> _Asked:
    budgets = score.answer_budgets(suite)
    tasks = {task.asked: task for task in suite.tasks}.values()  # once for all its metrics
    return _Asked(
        sum(task.items * (1 if budgets[task.name] else _CHOICES) for task in tasks),
        sum(task.items * _PROMPT_TOKENS * (1 + task.num_fewshot) for task in tasks),
        sum(task.items * _USED * budgets[task.name] for task in tasks),
    )


def _answering(source: Source, asked: _Asked, speed: Speed) -> float:
    """Return the seconds in which a server on a GPU answers."""
    tokens = asked.prompt_tokens / speed.prompt + asked.answer_tokens / speed.answer
    return max(asked.requests / _REQUESTS, _layers(source) * tokens)


def _layers(source: Source) -> int:
    config = source.config
    text = config.get("text_config", config)
    value = text.get("num_hidden_layers") if isinstance(text, Mapping) else None
    return value if isinstance(value, int) else 1
