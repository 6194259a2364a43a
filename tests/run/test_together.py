"""How two arms share a machine: at once where both fit, in turn where they do not."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.artifacts import (
    Band,
    CalibrationSpec,
    EngineSpec,
    MemorySpec,
    Recipe,
    ServerShare,
    Suite,
    TensorHeader,
    Tier,
)
from harness.models import Source
from harness.preflight import Together, Way, devices, together
from harness.preflight.devices import Memory
from harness.preflight.server_sizes import TwoServers
from harness.preflight.together import share_machine
from harness.recipe import load_suite
from tests.nouns import engine_spec, recipe_of

GIB = 1 << 30
LARGE = {
    "text_config": {
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "hidden_size": 2048,
        "head_dim": 256,
        "vocab_size": 248_320,
        "linear_num_value_heads": 32,
    }
}
"""Of a model of 35 B parameters, 3 B of them active."""
GPU = engine_spec("vllm", device="cuda", max_model_len=4096)
H200 = Memory(139 * GIB, 141 * GIB)


class Machine(NamedTuple):
    """What is there."""

    memory: Memory = H200
    gpus: tuple[int, ...] = (0,)


ONE_GPU = Machine()
SMALL = Machine(Memory(79 * GIB, 80 * GIB))


def model(gib: float, config: Mapping[str, object] = LARGE) -> Source:
    header = TensorHeader(
        shard="file", dtype="BF16", shape=(1,), num_bytes=int(gib * GIB), offset=0
    )
    return Source(name="m", path=Path("m"), config=config, tensors={"w": header}, digest="d")


def shared(  # noqa: PLR0913  what varies by test
    monkeypatch: pytest.MonkeyPatch,
    engine: EngineSpec = GPU,
    machine: Machine = ONE_GPU,
    *,
    baseline: Source | None = None,
    making: Recipe | None = None,
    suite: Suite | None = None,
) -> Together:
    """Return the plan for a model of 70 GiB and its checkpoint of 22 GiB, or a small one."""
    monkeypatch.setattr(together, "gpu_memory", lambda _: machine.memory)
    monkeypatch.setattr(together, "host_memory", lambda: machine.memory)
    monkeypatch.setattr(devices, "visible_gpus", lambda: machine.gpus)
    candidate_gib = 22 if baseline is None else 0.1
    servers = TwoServers(
        engine, suite or load_suite("nightly"), baseline or model(70), int(candidate_gib * GIB)
    )
    return share_machine(servers, making=making)


def test_two_servers_that_fit_run_at_once_and_are_told_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = shared(monkeypatch)
    assert (found.way, found.while_made) == (Way.BESIDE, True)
    assert found.share is not None
    assert found.share == found.baseline_share
    # 16 questions of 4096 tokens: keys and values of 2 heads of 256 numbers in 40 layers, 2 bytes
    # each, and a state of 2 MiB a layer.
    assert found.share.kv_bytes >= 16 * 40 * (4096 * 2 * 2 * 256 * 2 + 2 * (1 << 20))
    assert 92 * GIB + 2 * found.share.kv_bytes < 0.95 * H200.free
    assert 22 / 141 < found.share.utilization < 0.3
    assert found.share.requests == 64


def test_two_servers_that_do_not_fit_run_in_turn_and_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(together, "outlasts_its_start", lambda *_: False)
    found = shared(monkeypatch, machine=SMALL)
    assert (found.way, found.share, found.while_made) == (Way.IN_TURN, None, False)
    assert "79.0 GiB of GPU memory are free" in found.said()


def test_arms_whose_speeds_are_to_be_compared_run_in_turn_though_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    critical = Band(band=0.05, tier=Tier.CRITICAL)
    asked = dataclasses.replace(load_suite("nightly"), speed=critical)
    found = shared(monkeypatch, suite=asked)
    assert found.way is Way.IN_TURN
    assert "the suite compares their speeds" in found.said()


def test_a_long_suite_in_turn_lets_the_smoke_answers_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(together, "outlasts_its_start", lambda *_: True)
    found = shared(monkeypatch, machine=SMALL)
    assert "smoke answers first, suite last" in found.said()


def test_arms_with_gpus_of_their_own_are_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shared(monkeypatch, machine=SMALL._replace(gpus=(0, 1)))
    assert (found.way, found.share, found.while_made) == (Way.APART, None, True)


@pytest.mark.parametrize(
    ("asked", "way"), [("0.4", Way.BESIDE), ("0.9", Way.IN_TURN), ("0.49", Way.IN_TURN)]
)
def test_a_share_that_the_user_gives_is_each_servers(
    monkeypatch: pytest.MonkeyPatch, asked: str, way: Way
) -> None:
    engine = dataclasses.replace(GPU, arguments=(f"gpu_memory_utilization={asked}",))
    found = shared(monkeypatch, engine)
    assert (found.way, found.share, found.while_made) == (way, None, False)
    assert found.waits == (way is Way.BESIDE)


def test_keys_and_values_that_the_user_gives_are_not_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = dataclasses.replace(GPU, arguments=("kv-cache-memory-bytes=8G",))
    assert shared(monkeypatch, engine).way is Way.IN_TURN


@pytest.mark.parametrize(
    ("config", "why"),
    [({}, "is not known"), ({**LARGE["text_config"], "num_attention_heads": 0}, "is not known")],
)
def test_a_model_whose_sizes_are_not_said_is_served_in_turn(
    monkeypatch: pytest.MonkeyPatch, config: Mapping[str, object], why: str
) -> None:
    values = {key: value for key, value in config.items() if key != "num_key_value_heads"}
    found = shared(monkeypatch, baseline=model(1, values))
    assert found.way is Way.IN_TURN
    assert why in found.why


def made_on(device: str, *, layerwise: bool = True, gib: int | None = None) -> Recipe:
    recipe = recipe_of(load_spec(layerwise=layerwise), device=device)
    memory = MemorySpec(gpu_bytes=None if gib is None else gib * GIB)
    return dataclasses.replace(recipe, memory=memory)


def load_spec(*, layerwise: bool) -> CalibrationSpec:
    return CalibrationSpec(data="d", size=8, seq=64, seed=0, batch_tokens=None, layerwise=layerwise)


@pytest.mark.parametrize(
    ("making", "while_made"),
    [
        (made_on("cpu"), True),
        (made_on("cuda"), True),
        (made_on("cuda:1"), True),
        (made_on("cuda", layerwise=False), False),
        (made_on("cuda", gib=20), True),
        (made_on("cuda", gib=100), False),
    ],
)
def test_the_baseline_starts_while_the_candidate_is_made_where_both_fit(
    monkeypatch: pytest.MonkeyPatch, making: Recipe, *, while_made: bool
) -> None:
    found = shared(monkeypatch, making=making)
    assert (found.way, found.while_made) == (Way.BESIDE, while_made)
    if making.device == "cuda" and while_made:
        assert found.making_bytes is not None
        assert found.making_bytes + 70 * GIB < H200.free


def test_a_gpu_that_calibrates_is_not_the_baselines_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranks = dataclasses.replace(made_on("cuda"), ranks=2)
    assert not shared(monkeypatch, machine=Machine(gpus=(0, 1)), making=ranks).while_made
    assert shared(monkeypatch, machine=Machine(gpus=(0, 1)), making=made_on("cuda")).while_made


CPU = engine_spec("vllm", device="cpu", max_model_len=256)


def test_on_a_cpu_each_server_gets_half_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "halves_of_cores", lambda: ((0, 1), (2, 3)))
    found = shared(monkeypatch, CPU, baseline=model(0.1))
    assert found.way is Way.BESIDE
    assert found.share is not None
    assert found.baseline_share is not None
    assert (found.share.cores, found.baseline_share.cores) == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("memory", "cores", "why"),
    [
        (Memory(4 * GIB, 64 * GIB), ((0,), (1,)), "4.0 GiB of the host are free"),
        (H200, ((), ()), "one CPU core"),
    ],
)
def test_a_small_machine_serves_in_turn(
    monkeypatch: pytest.MonkeyPatch,
    memory: Memory,
    cores: tuple[tuple[int, ...], tuple[int, ...]],
    why: str,
) -> None:
    monkeypatch.setattr(together, "halves_of_cores", lambda: cores)
    found = shared(monkeypatch, CPU, Machine(memory), baseline=model(0.1))
    assert found.way is Way.IN_TURN
    assert why in found.why


def test_cores_that_the_user_binds_stay_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "halves_of_cores", lambda: ((0,), (1,)))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    found = shared(monkeypatch, CPU, baseline=model(0.1))
    assert (found.way, found.share) == (Way.BESIDE, None)


def test_the_engine_in_this_process_answers_the_smoke_set_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = shared(monkeypatch, engine_spec("reference"))
    assert (found.way, found.asks_first) == (Way.IN_TURN, True)


def test_what_a_server_shares_is_no_condition_of_its_answers() -> None:
    beside = dataclasses.replace(CPU, share=ServerShare(cores=(0,)))
    assert beside.identity() == CPU.identity()


def test_threads_of_one_core_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(devices, "_siblings", lambda n, _: {n % 4, n % 4 + 4})
    assert devices.halves_of_cores() == ((0, 1), (2, 3))
    monkeypatch.setattr(devices, "_siblings", lambda *_: set(range(8)))
    assert devices.halves_of_cores() == ((0, 1, 2, 3), (4, 5, 6, 7))
