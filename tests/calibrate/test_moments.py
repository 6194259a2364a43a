"""What inputs are like: sums of their products, expert by expert, whichever way experts run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.algorithms import SecondMoments
from harness.artifacts import Algorithm, MemorySpec, PlannedLinear, QuantPlan, Rounding, Scales
from harness.calibrate.memory import Budget
from harness.calibrate.moments import MomentCollector, bytes_of_moments
from harness.errors import RejectedError, StageError
from harness.models import (
    decoder_layers,
    experts_run,
    load_model,
    open_source,
    read_inventory,
    tap_linears,
)
from harness.recipe import Request, load_recipe, plan

WHOLE = Algorithm(rounding=Rounding.GPTQ)
BLOCKS = Algorithm(scales=Scales.LOCAL_HESSIAN)


class Seen:
    """One decoder layer that was run, with what it was given."""

    def __init__(self, model: Path, ending: str, way: str) -> None:
        source = open_source(str(model))
        inventory = read_inventory(source)
        request = Request(model=str(model), qformat=f"nvfp4_{ending}", device="cpu")
        self.plan: QuantPlan = plan(load_recipe(request), inventory)
        self.collector = MomentCollector(self.plan)
        running = load_model(source, inventory, device="cpu", dtype=torch.float32)
        self.inputs: dict[str, list[Tensor]] = {}
        ids_BT = torch.randint(0, 250, (4, 32), generator=torch.Generator().manual_seed(0))

        def see(parameter: str, expert: int | None, x: Tensor) -> None:
            name = parameter if expert is None else f"{parameter}.{expert}"
            self.inputs.setdefault(name, []).append(x.reshape(-1, x.shape[-1]).clone())
            self.collector.see_input(parameter, expert, x)

        on_grouped = self.collector.see_grouped if way == "grouped" else None
        tap = tap_linears(running, see, on_grouped)
        with torch.inference_mode(), experts_run(running, way), tap:
            running(input_ids=ids_BT, use_cache=False)
        self.layers: nn.ModuleList = decoder_layers(running)

    def routed(self) -> list[PlannedLinear]:
        """Return the first projection of all experts of one layer."""
        experts = [one for one in self.plan.quantized if one.linear.is_routed]
        first = experts[0].linear.parameter
        return [
            one
            for one in experts
            if one.linear.parameter.tensor == first.tensor
            and one.linear.parameter.rows == first.rows
        ]


def sums(rows: list[Tensor]) -> Tensor:
    x = torch.cat(rows).float()
    return x.mT @ x


def test_each_expert_has_the_sums_of_the_tokens_that_it_got(tiny_qwen3_5_moe: Path) -> None:
    seen = Seen(tiny_qwen3_5_moe, "gptq", "eager")
    members = seen.routed()
    found = seen.collector.of(members)
    for one, moment, tokens in zip(members, found.sums, found.tokens_E, strict=True):
        rows = seen.inputs.get(f"{one.linear.parameter.tensor}.{one.linear.parameter.expert}", [])
        assert int(tokens) == sum(map(len, rows))
        if rows:
            assert torch.allclose(moment, sums(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ["gptq", "local_hessian"])
def test_experts_in_one_product_have_the_same_sums(tiny_qwen3_5_moe: Path, ending: str) -> None:
    eager, grouped = (Seen(tiny_qwen3_5_moe, ending, way) for way in ("eager", "grouped"))
    one, other = eager.collector.of(eager.routed()), grouped.collector.of(grouped.routed())
    assert torch.equal(one.tokens_E, other.tokens_E)
    assert int(one.tokens_E.sum()) > 0
    assert torch.allclose(one.sums, other.sums, rtol=1e-3, atol=1e-3)


def test_layers_that_read_one_input_share_its_sums(tiny_qwen3_5_moe: Path) -> None:
    seen = Seen(tiny_qwen3_5_moe, "gptq", "grouped")
    groups: dict[str, list[PlannedLinear]] = {}
    for one in seen.plan.quantized:
        if not one.linear.is_routed:
            groups.setdefault(one.linear.group, []).append(one)
    fused = next(members for members in groups.values() if len(members) > 1)
    for one in fused:
        moment = seen.collector.of([one]).sums[0]
        expected = sums(seen.inputs[one.linear.parameter.tensor])
        assert torch.allclose(moment, expected, rtol=1e-4, atol=1e-5)


def test_blocks_are_those_of_whole_inputs(tiny_qwen3_5_moe: Path) -> None:
    whole, alone = (Seen(tiny_qwen3_5_moe, e, "grouped") for e in ("gptq", "local_hessian"))
    members = whole.routed()
    one, other = whole.collector.of(members), alone.collector.of(members)
    assert other.sums.shape[-2:] == (16, 16)
    assert torch.allclose(one.blocks(), other.blocks(), rtol=1e-4, atol=1e-6)


def test_a_layer_that_was_before_is_forgotten(tiny_qwen3_5_moe: Path) -> None:
    seen = Seen(tiny_qwen3_5_moe, "gptq", "grouped")
    seen.collector.clear()
    with pytest.raises(RejectedError, match="calibration saw no input of"):
        seen.collector.of(seen.routed())


def test_inputs_that_are_not_finite_are_named(tiny_qwen3_5_moe: Path) -> None:
    seen = Seen(tiny_qwen3_5_moe, "local_hessian", "grouped")
    members = seen.routed()
    with torch.inference_mode():
        seen.collector.of(members).sums[0, 0, 0, 0] = float("inf")
    with pytest.raises(RejectedError, match="squares are infinite"):
        seen.collector.of(members)


def test_what_one_layer_s_moments_take_is_known_before(tiny_qwen3_5_moe: Path) -> None:
    for ending in ("gptq", "local_hessian"):
        seen = Seen(tiny_qwen3_5_moe, ending, "grouped")
        kept: dict[str, Tensor] = vars(seen.collector)["_sums"]
        first = [x.nbytes for name, x in kept.items() if ".layers.0." in name]
        assert 0 < sum(first) <= bytes_of_moments(seen.plan)
    budget = Budget(MemorySpec(host_bytes=1 << 20), "cpu")
    with pytest.raises(StageError, match=r"keeps 4\.0 GiB of second moments"):
        budget.check_moments(4 << 30)


def test_a_plan_without_such_an_algorithm_sums_up_nothing(tiny_qwen3_5_moe: Path) -> None:
    seen = Seen(tiny_qwen3_5_moe, "mse", "grouped")
    fields: dict[str, Any] = vars(seen.collector)
    assert not fields["_sums"]


def test_moments_of_few_tokens_are_firm() -> None:
    x = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    moments = SecondMoments(x.mT @ x, torch.tensor([3]))
    for found in (moments.blocks(), moments.whole(damping=0.01)):
        assert torch.linalg.eigvalsh(found).min() > 0
