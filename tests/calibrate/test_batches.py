"""The size of a batch is found by running one layer."""

from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.artifacts import MemorySpec
from harness.calibrate.batches import CPU_TOKENS, measure_batch_tokens
from harness.calibrate.forward import LayerwiseRun, RunOptions
from harness.calibrate.memory import Budget
from harness.models import StreamedModel
from tests.calibrate.conftest import MakeCase


class Machine:
    """Runs a token in a time that depends on the batch; its clock stands still otherwise."""

    def __init__(self, *, saturates: int, memory: int) -> None:
        self._now, self._saturates, self._memory = 0.0, saturates, memory
        self.tried: list[int] = []

    def clock(self) -> float:
        return self._now

    def run(self, ids_BT: Tensor) -> None:
        tokens = ids_BT.numel()
        self.tried.append(tokens)
        if tokens > self._memory:
            torch.empty(1 << 50)
        self._now += max(tokens, self._saturates) / 1e6


@pytest.mark.parametrize(
    ("saturates", "memory", "expected"),
    [
        (4096, 1 << 30, 4096),
        (16384, 1 << 30, 16384),
        (1 << 30, 1 << 30, 65536),
        (1 << 30, 20_000, 16384),
        (1 << 30, 100, 4096),
    ],
)
def test_the_fewest_tokens_that_run_nearly_as_fast_as_more(
    saturates: int, memory: int, expected: int
) -> None:
    machine = Machine(saturates=saturates, memory=memory)
    found = measure_batch_tokens(machine.run, length=512, vocabulary=100, clock=machine.clock)
    assert found == expected
    assert max(machine.tried) <= 2 * max(expected, 4096)


@pytest.mark.parametrize("length", [3000, 4096, 5000, 20_000, 100_000])
def test_batches_of_long_samples_grow_by_samples(length: int) -> None:
    machine = Machine(saturates=1 << 30, memory=1 << 30)
    found = measure_batch_tokens(machine.run, length=length, vocabulary=100, clock=machine.clock)
    assert found % length == 0
    assert found == length or found <= 65536 < 2 * found
    assert found in machine.tried


def test_other_errors_are_bugs() -> None:
    def fail(ids_BT: Tensor) -> None:
        del ids_BT
        message = "shape mismatch"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="shape mismatch"):
        measure_batch_tokens(fail, length=8, vocabulary=10)


@pytest.mark.parametrize("family", ["qwen3_5_moe", "mixtral", "qwen3"])
def test_one_layer_runs_alone(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    case = make_case(tiny_models[family])
    streamed = StreamedModel(case.source, case.inventory, device="cpu", dtype=torch.bfloat16)
    options = RunOptions("cpu", "eager", Budget(MemorySpec(), "cpu"))
    run = LayerwiseRun(streamed, [], options)
    with closing(run.layers()) as layers:
        first = next(layers)
        run.try_alone(first, torch.zeros(2, 16, dtype=torch.int64))
        run.try_alone(first, torch.zeros(1, 24, dtype=torch.int64))
        assert first.module is streamed.layers[0]
        assert all(not parameter.is_meta for parameter in first.module.parameters())
        assert all(not list(other.parameters()) for other in list(streamed.layers)[1:])


def test_on_a_cpu_the_size_is_set(tiny_models: dict[str, Path], make_case: MakeCase) -> None:
    stats = make_case(tiny_models["qwen3"], batch_tokens=None).run()
    assert stats.batch_tokens == CPU_TOKENS
