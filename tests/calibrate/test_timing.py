"""One decoder layer of each kind is run as the run would, and counts for the others."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from harness.artifacts import KvFormat, Linear
from harness.calibrate import (
    CalibrationTimes,
    Extent,
    Workload,
    forward,
    time_calibration,
    timing,
)
from harness.calibrate.memory import Activations
from harness.errors import ReasonCode, StageError
from harness.models import Stack
from harness.stopwatch import Clock
from tests.calibrate.conftest import Case, MakeCase, is_planned

EXTENT = Extent(num_samples=6, num_tokens=96, num_batches=2)


class Machine:
    """A made clock: each reading takes a second, unless a test lets layers take their time."""

    def __init__(self, reading_s: float = 1.0) -> None:
        self.now_s, self.waited_s, self._reading_s = 0.0, 0.0, reading_s
        self.clock = Clock(self._read, lambda: {"1": self.waited_s}, lambda: 0.0, 2)

    def _read(self) -> float:
        self.now_s += self._reading_s
        return self.now_s


def timed(
    case: Case,
    shown: list[set[str]],
    extent: Extent = EXTENT,
    clock: Clock | None = None,
) -> CalibrationTimes:
    def quantize(stacks: Sequence[Stack], amax: Mapping[str, float]) -> None:
        assert all(value > 0 for value in amax.values())
        names = {one.linear.name for stack in stacks for one in stack.members}
        shown.append({name.split(".layers.")[1].split(".")[0] for name in names})

    workload = Workload(extent, quantize, clock or Machine().clock)
    return time_calibration(case.recipe, case.source, case.inventory, case.plan, workload)


def test_one_layer_of_each_kind_stands_for_the_others(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    shown: list[set[str]] = []
    case = make_case(tiny_models["qwen3_5_moe"])
    found = timed(case, shown)
    text: Any = case.source.config["text_config"]
    types = text["layer_types"]
    firsts = sorted({types.index(kind) for kind in types})
    # Shown twice: the first time compiles what is compiled.
    assert shown == [{str(index)} for index in firsts for _ in range(2)]
    counts = [types.count(types[index]) for index in firsts]
    assert [layer.num_layers for layer in found.layers] == counts
    for layer in found.layers:
        assert layer.quantized.low_s > 0
        assert layer.num_bytes > 0
        assert layer.run(2, 96).low_s > 0
    assert found.byte.low_s > 0


def test_layers_that_the_plan_treats_differently_are_timed_each(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    def is_not_in_the_first(linear: Linear) -> bool:
        return is_planned(linear) and ".layers.0." not in linear.name

    found = timed(make_case(tiny_models["qwen3_moe"], planned=is_not_in_the_first), [])
    first, *others = found.layers
    assert first.num_layers == 1
    assert [other.num_layers for other in others] != []
    assert first.num_bytes == others[0].num_bytes


def test_long_samples_count_by_their_tokens(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of the run holds more samples than the one that is tried."""
    monkeypatch.setattr(timing, "_CPU_MOST", 16)
    found = timed(make_case(tiny_models["qwen3"]), [], Extent(64, 64 * 16, 4))
    assert all(layer.call_s == 0 for layer in found.layers)
    assert all(layer.token_s > 0 for layer in found.layers)


def test_weights_alone_run_nothing(tiny_models: dict[str, Path], make_case: MakeCase) -> None:
    case = make_case(tiny_models["qwen3_moe"], inputs=None, kv_cache=KvFormat.NONE)
    found = timed(case, [])
    assert [layer.run(2, 96).high_s for layer in found.layers] == [0.0]
    assert found.layers[0].quantized.low_s > 0


def test_what_does_not_fit_is_tried_with_fewer_samples(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    ids = timing._random_ids  # noqa: SLF001  # shows the size of a batch

    def small(size: int, length: int, vocabulary: int) -> Tensor:
        sizes.append(size)
        if size > most:
            raise MemoryError
        return ids(size, length, vocabulary)

    monkeypatch.setattr(timing, "_random_ids", small)
    case, most = make_case(tiny_models["qwen3"]), 2
    assert timed(case, []).layers[0].run(2, 96).low_s > 0
    assert max(sizes) == 3
    assert sizes[-1] == 1
    most = 0
    with pytest.raises(StageError, match="one sample of 16 tokens does not fit"):
        timed(case, [])


def test_weights_alone_that_do_not_fit_are_told_in_one_line(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    spec = {"inputs": None, "kv_cache": KvFormat.NONE, "layerwise": True}
    case = make_case(tiny_models["qwen3"], **spec)
    monkeypatch.setattr(Activations, "__init__", fail)
    for run in (case.run, lambda: timed(case, [])):
        with pytest.raises(StageError, match=r"two decoder layers, .* do not fit") as caught:
            run()
        assert caught.value.reason is ReasonCode.OUT_OF_MEMORY


CALL_S, TOKEN_S = 0.25, 0.01


def let_layers_take(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, waits: Iterator[float]
) -> list[int]:
    """Let each call of a layer take a known time, and wait besides; return the tokens of each."""
    run_layer, tokens = forward._run_layer, list[int]()  # noqa: SLF001  # what a layer takes

    def known(layer: nn.Module, hidden_BTH: Tensor, call: Any) -> Tensor:  # noqa: ANN401  # passed on
        tokens.append(hidden_BTH.shape[0] * hidden_BTH.shape[1])
        waited_s = next(waits)
        machine.now_s += CALL_S + TOKEN_S * tokens[-1] + waited_s
        machine.waited_s += waited_s
        return run_layer(layer, hidden_BTH, call)

    monkeypatch.setattr(forward, "_run_layer", known)
    return tokens


def test_the_range_is_what_a_machine_takes_whose_times_are_known(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(reading_s=0.0)
    let_layers_take(monkeypatch, machine, repeat(0.0))
    extent = Extent(64, 64 * 16, 4)
    found = timed(make_case(tiny_models["qwen3"]), [], extent, machine.clock)
    (layer,) = found.layers
    took = layer.run(extent.num_batches, extent.num_tokens)
    assert took.low_s == pytest.approx(4 * CALL_S + 64 * 16 * TOKEN_S)
    assert took.high_s == pytest.approx(took.low_s)


def test_waits_for_a_processor_widen_the_range_upwards_alone(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(reading_s=0.0)
    let_layers_take(monkeypatch, machine, repeat(0.1))
    (layer,) = timed(make_case(tiny_models["qwen3"]), [], EXTENT, machine.clock).layers
    took = layer.run(2, 96)
    assert took.low_s == pytest.approx(2 * CALL_S + 96 * TOKEN_S)
    assert took.low_s < took.high_s < 2 * took.low_s


def test_a_layer_whose_times_grow_cannot_be_said_and_is_left_soon(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(reading_s=0.0)
    tokens = let_layers_take(monkeypatch, machine, (1.5**n for n in count()))
    (layer,) = timed(make_case(tiny_models["qwen3"]), [], EXTENT, machine.clock).layers
    assert not layer.run(2, 96).can_be_said
    assert len(tokens) == 2 * (1 + 5), "a first round, and five that differ"


def test_what_is_compiled_for_the_first_ids_is_no_part_of_the_start(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = forward._forward  # noqa: SLF001  # what runs the model
    lasts_s = 0.5

    def compiling(model: Any, batch_BT: Tensor, *, with_logits: bool) -> None:  # noqa: ANN401  # passed on
        if tuple(batch_BT.shape) == (1, 8):
            time.sleep(lasts_s)
        run(model, batch_BT, with_logits=with_logits)

    monkeypatch.setattr(forward, "_forward", compiling)
    on_cpu = timed(make_case(tiny_models["qwen3"]), [])
    monkeypatch.setattr(timing._Timed, "_compiled_s", lambda _, warm_up_s: warm_up_s)  # noqa: SLF001
    elsewhere = timed(make_case(tiny_models["qwen3"]), [])
    assert on_cpu.start.high_s - elsewhere.start.high_s > lasts_s / 2


@pytest.mark.parametrize(
    ("device", "warm_up_s", "expected_s"),
    [("cuda:0", 58.0, 57.0), ("cuda", 0.5, 0), ("cpu", 58, 0)],
)
def test_a_run_sees_a_second_of_a_gpu_s_warm_up_again(
    device: str, warm_up_s: float, expected_s: float
) -> None:
    timer = object.__new__(timing._Timed)  # noqa: SLF001  # the rule by itself
    vars(timer)["_recipe"] = SimpleNamespace(device=device)
    assert timer._compiled_s(warm_up_s) == expected_s
