"""What calibration may take, and what it does where that is not enough."""

import dataclasses
from pathlib import Path

import pytest
import torch

from harness.artifacts import MemorySpec
from harness.calibrate import memory
from harness.calibrate.memory import Activations, Budget, host_bytes
from harness.errors import ReasonCode, StageError
from tests.calibrate.conftest import Case, MakeCase


class Full(Budget):
    """A device that has room for nothing."""

    def __init__(self) -> None:
        super().__init__(MemorySpec(), "cpu")

    def has_room(self) -> bool:
        return False


def bounded(case: Case, host_bytes: int) -> Case:
    recipe = dataclasses.replace(case.recipe, memory=MemorySpec(host_bytes=host_bytes))
    return case._replace(recipe=recipe)


@pytest.mark.parametrize("budget", [Full(), Budget(MemorySpec(), "cpu")], ids=["full", "room"])
def test_hidden_states_come_back_as_they_were_put(budget: Budget) -> None:
    inputs = [torch.full((2, 3), float(i)) for i in range(3)]
    activations = Activations(budget, "cpu")
    for hidden in inputs:
        activations.append(hidden)
    for batch in range(3):
        hidden = activations.take(batch)
        assert torch.equal(hidden, inputs[batch])
        activations.put(batch, hidden + 1)
    assert [float(hidden[0, 0]) for hidden in activations] == [1.0, 2.0, 3.0]


def test_where_hidden_states_wait_changes_nothing(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tiny_models["qwen3_5_moe"], layerwise=True)
    expected = case.run()
    monkeypatch.setattr(Budget, "has_room", lambda *_: False)
    assert case.run() == expected


def test_more_memory_of_the_host_than_allowed_ends_the_run(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    case = make_case(tiny_models["qwen3"], layerwise=True)
    assert bounded(case, 1 << 40).run() == case.run()
    with pytest.raises(StageError, match=r"GiB of the host's memory, and --host-memory") as caught:
        bounded(case, 1 << 20).run()
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY


def test_hidden_states_that_go_to_the_host_are_counted_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = Budget(MemorySpec(host_bytes=1 << 20), "cpu")
    monkeypatch.setattr(Budget, "has_room", lambda *_: False)
    with pytest.raises(StageError, match=r"--host-memory allows 0\.00 GiB"):
        Activations(budget, "cpu").append(torch.zeros(8))


def test_the_memory_of_the_host_is_known() -> None:
    before = host_bytes()
    held = torch.ones(64 << 20, dtype=torch.uint8)
    assert host_bytes() - before > held.nbytes // 2
    assert memory.Budget(MemorySpec(), "cpu").report().endswith("of the host's memory")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_no_more_than_allowed(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    case = make_case(tiny_models["qwen3_5_moe"], layerwise=True)
    whole = case._replace(recipe=dataclasses.replace(case.recipe, device="cuda"))
    expected = whole.run()
    most = 512 << 20
    spec = MemorySpec(gpu_bytes=most)
    few = whole._replace(recipe=dataclasses.replace(whole.recipe, memory=spec))
    torch.cuda.empty_cache()
    assert few.run() == expected
    assert torch.cuda.max_memory_reserved() <= most
    assert torch.empty(2 * most, dtype=torch.uint8, device="cuda").is_cuda  # no bound is left
