"""How the two arms share the machine: at once where they fit beside each other, else in turn.

A server of vLLM takes its weights, what a step computes with, and as much for keys and values as it
is told. For two on the same GPUs it is told: both get the same, what the suite's longest questions
need of it and, where there is more, as much as keeps all requests in memory. So neither measures
what is free while the other takes it. Numbers do not depend on it; how fast they come does.

What is computed here is an estimate from files and configurations. A server that finds too little
memory after all is started again when the other is done (harness.arms).
"""

import os
from dataclasses import dataclass
from enum import StrEnum

from harness.artifacts import EngineSpec, Recipe, ServerShare, Tier
from harness.baselines import ScoredArm, inputs_of, missing
from harness.export import required_bytes
from harness.preflight.devices import (
    Memory,
    assign_gpus,
    gpu_memory,
    halves_of_cores,
    host_memory,
)
from harness.preflight.gate_job import GateJob
from harness.preflight.job import Job
from harness.preflight.server_sizes import (
    GIB,
    USED_SHARE,
    TwoServers,
    host_bytes,
    in_gib,
    share_of,
    taken_by_baseline,
    weights_of,
)
from harness.preflight.serving_time import outlasts_its_start

_SERVERS = frozenset({"vllm", "docker"})
"""Engines whose servers can be told what to take."""
_MAKING_BYTES, _MAKING_SHARE = 16 * GIB, 0.25
"""The least that calibration is left of a GPU, and the least share of it."""
_UTILIZATION = frozenset({"gpu-memory-utilization", "device-memory-utilization"})
_KEYS = frozenset({"kv-cache-memory-bytes", "kv-cache-memory", "num-gpu-blocks-override"})


class Way(StrEnum):
    """How the arms share the machine."""

    ALONE = "alone"
    """The candidate is served by itself: nothing of the baseline is missing."""
    APART = "apart"
    """At once, each on GPUs of its own."""
    BESIDE = "beside"
    """At once on the same device."""
    IN_TURN = "in turn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """How the two arms of a run are served."""

    way: Way
    why: str
    """As the end of a sentence."""
    while_made: bool = False
    """Whether the baseline's server starts while the candidate is calibrated."""
    share: ServerShare | None = None
    """What the candidate's server is told to take; None where it is told nothing."""
    baseline_share: ServerShare | None = None
    """The same of the baseline's: as much, of a CPU other cores."""
    waits: bool = False
    """Whether the candidate's server may start only when the baseline's has."""
    asks_first: bool = False
    """In turn: whether the baseline answers the smoke set in a start of its own, for its suite
    takes so much longer that a broken candidate should not have to wait for it."""
    making_bytes: int | None = None
    """Most that calibration may take of a GPU meanwhile."""

    def said(self) -> str:
        """Say it in a line."""
        if self.way is Way.ALONE:
            return f"the candidate by itself, {self.why}"
        if self.way is Way.IN_TURN:
            order = "smoke answers first, suite last" if self.asks_first else "first and whole"
            return f"in turn, the baseline {order}; {self.why}"
        begins = "from the beginning" if self.while_made else "once the checkpoint is made"
        return f"at once, the baseline {begins}; {self.why}"


def plan_arms(job: Job | GateJob) -> Together:
    """Return how the arms of a run share the machine as it is now."""
    recipe, baseline = job.recipe, job.baseline
    if isinstance(baseline, ScoredArm):
        return Together(way=Way.ALONE, why="the baseline's scores are given")
    inputs = inputs_of(baseline, recipe.engine, recipe.suite)
    if not missing(inputs, recipe.suite.smoke).anything:
        return Together(way=Way.ALONE, why="the store has the baseline")
    making = job.recipe if isinstance(job, Job) else None
    servers = TwoServers(recipe.engine, recipe.suite, baseline, candidate_bytes(job))
    return share_machine(servers, making=making)


def candidate_bytes(job: Job | GateJob) -> int:
    """Return how much the candidate holds, or will."""
    if isinstance(job, Job):
        return required_bytes(job.source, job.plan)
    return weights_of(job.checkpoint)


def share_machine(servers: TwoServers, *, making: Recipe | None) -> Together:
    """Return how two servers share this machine.

    Args:
        servers: what is served, with what.
        making: how the candidate is made; None where it is there.
    """
    engine = servers.engine
    if engine.name not in _SERVERS:
        here = engine.name == "reference"
        why = "both are in this process" if here else f"what {engine.name} takes is not known"
        return _in_turn(servers, why)
    if servers.suite.speed.tier is Tier.CRITICAL:
        return _in_turn(servers, "the suite compares their speeds")
    if not engine.device.startswith("cuda"):
        return _on_host(servers, making)
    _, theirs = assign_gpus(engine)
    if theirs is not None:
        size = engine.tensor_parallel_size
        places = set(range(size, 2 * size))
        while_made = not (places & _making_places(making))
        why = f"{2 * size} GPUs, {size} for each"
        return Together(way=Way.APART, why=why, while_made=while_made)
    return _on_gpus(servers, making)


def _in_turn(servers: TwoServers, why: str) -> Together:
    asks_first = outlasts_its_start(servers.engine, servers.suite, servers.baseline)
    return Together(way=Way.IN_TURN, why=why, asks_first=asks_first)


def _on_host(servers: TwoServers, making: Recipe | None) -> Together:
    memory, needed = host_memory(), host_bytes(servers)
    made = servers.baseline_bytes if making is not None else 0
    why = f"both need {in_gib(needed)}, {in_gib(memory.free)} of the host are free"
    if needed > USED_SHARE * memory.free:
        return _in_turn(servers, why)
    ours, theirs = halves_of_cores()
    if not ours:
        return _in_turn(servers, "there is one CPU core")
    is_bound = "VLLM_CPU_OMP_THREADS_BIND" in os.environ
    return Together(
        way=Way.BESIDE,
        why=why,
        while_made=needed + made <= USED_SHARE * memory.free,
        share=None if is_bound else ServerShare(cores=ours),
        baseline_share=None if is_bound else ServerShare(cores=theirs),
    )


def _on_gpus(servers: TwoServers, making: Recipe | None) -> Together:
    engine = servers.engine
    memory = gpu_memory(range(engine.tensor_parallel_size))
    if memory is None:
        return _in_turn(servers, "the memory of the GPUs is not known")
    given = _given(engine)
    if given & _KEYS:
        return _in_turn(servers, f"--engine-arg {min(given & _KEYS)} is given")
    if given & _UTILIZATION:
        return _as_given(servers, memory)
    share = share_of(servers, memory)
    if isinstance(share, str):
        return _in_turn(servers, share)
    left = int(USED_SHARE * memory.free) - taken_by_baseline(servers, share)
    is_else = making is None or not (_making_places(making) & _places(engine))
    fits = is_else or (making is not None and _leaves_enough(making, left, memory))
    return Together(
        way=Way.BESIDE,
        why=f"both fit into {in_gib(memory.free)} of GPU memory that are free",
        while_made=fits,
        share=share,
        baseline_share=share,
        making_bytes=None if is_else or not fits else left,
    )


def _as_given(servers: TwoServers, memory: Memory) -> Together:
    """Return what becomes of `--engine-arg gpu-memory-utilization`: it is each server's share."""
    asked = max(_values(servers.engine, _UTILIZATION), default=1.0)
    why = f"--engine-arg gpu-memory-utilization={asked:g}, {in_gib(memory.free)} are free"
    if 2 * asked * memory.total > USED_SHARE * memory.free:
        return _in_turn(servers, why)
    if servers.suite.smoke is None:
        return _in_turn(servers, why)
    return Together(way=Way.BESIDE, why=why, waits=True)


def _places(engine: EngineSpec) -> set[int]:
    return set(range(engine.tensor_parallel_size))


def _making_places(making: Recipe | None) -> set[int]:
    """Return the GPUs that calibrate, numbered as torch does."""
    if making is None or not making.device.startswith("cuda"):
        return set()
    first = int(making.device.partition(":")[2] or 0)
    return set(range(first, first + making.ranks))


def _leaves_enough(making: Recipe, left: int, memory: Memory) -> bool:
    if not making.calibration.layerwise:
        return False
    asked = making.memory.gpu_bytes
    if asked is not None:
        return asked <= left
    return left >= max(_MAKING_BYTES, _MAKING_SHARE * memory.total)


def _given(engine: EngineSpec) -> set[str]:
    return {_key(argument) for argument in engine.arguments}


def _values(engine: EngineSpec, names: frozenset[str]) -> list[float]:
    """Return what arguments of these names say; they were checked when the engine was resolved."""
    return [float(one.partition("=")[2]) for one in engine.arguments if _key(one) in names]


def _key(argument: str) -> str:
    return argument.partition("=")[0].removeprefix("--").replace("_", "-").lower()
