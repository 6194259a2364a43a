"""What the measurement of thin experts sees is what a calibration sees and an engine rounds."""

import json
import re
from functools import reduce
from operator import add
from pathlib import Path

import pytest
import torch

from harness.formats import get_format
from harness.models import experts_run, load_model, open_source, read_inventory
from harness.recipe import Request, load_recipe, plan
from scripts.coverage.inside import Evidence, Planned, Rounding, Seeing, planned_parameters, tapped

LEDGER = Path(__file__).resolve().parents[2] / "evals" / "ledger.jsonl"
NUMBER = re.compile(r"\d+\.\d+")
IDS_BT = torch.arange(48).view(4, 12)


@pytest.fixture(scope="module")
def seen(tiny_qwen3_5_moe: Path) -> tuple[dict[str, Planned], Evidence, Evidence]:
    """What is planned of a tiny model, what text shows at once and what it shows in two parts."""
    source = open_source(str(tiny_qwen3_5_moe))
    inventory = read_inventory(source)
    request = Request(model=str(tiny_qwen3_5_moe), qformat="nvfp4", device="cpu")
    planned = planned_parameters(plan(load_recipe(request), inventory))
    model = load_model(source, inventory, device="cpu", dtype=torch.bfloat16)

    def see(ids_BT: torch.Tensor) -> Evidence:
        seeing = Seeing(planned, torch.device("cpu"))
        names = list(planned)
        with torch.inference_mode(), experts_run(model, "grouped"), tapped(model, names, seeing):
            model.base_model(input_ids=ids_BT, use_cache=False)
        return seeing.evidence()

    return planned, see(IDS_BT), reduce(add, map(see, torch.split(IDS_BT, 2)))


def test_each_token_is_counted_for_as_many_experts_as_it_meets(
    seen: tuple[dict[str, Planned], Evidence, Evidence],
) -> None:
    planned, evidence, _ = seen
    routed = {name for name, one in planned.items() if one.num_experts}
    assert evidence.tokens.keys() == routed
    (each,) = {int(tokens.sum()) for tokens in evidence.tokens.values()}
    assert each % IDS_BT.numel() == 0
    assert all((amax > 0).any() for amax in evidence.amax.values())


def test_parts_of_a_text_show_together_what_it_shows_at_once(
    seen: tuple[dict[str, Planned], Evidence, Evidence],
) -> None:
    _, whole, parts = seen
    for name, amax in whole.amax.items():
        torch.testing.assert_close(parts.amax[name].amax(), amax.amax(), rtol=0.02, atol=0)
    assert sum(map(torch.sum, parts.tokens.values())) == sum(map(torch.sum, whole.tokens.values()))


@pytest.mark.parametrize("form", ["nvfp4", "fp8"])
@pytest.mark.parametrize("each", [False, True])
def test_rows_are_rounded_as_the_format_rounds_each_experts(form: str, *, each: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_SI = torch.randn(6, 32, generator=generator, dtype=torch.bfloat16)
    expert_S = torch.tensor([0, 0, 1, 1, 2, 2])
    evidence = Evidence({"w": torch.tensor([1, 1, 0])}, {"w": torch.tensor([0.5, 4.0, 0.0])})
    rounding = Rounding(form, evidence, evidence, each=each)
    found_SI = rounding("w", rows_SI, expert_S)
    amax = (0.5, 4.0, 4.0) if each else (4.0, 4.0, 4.0)  # the third saw nothing
    chosen = get_format(form)
    for expert, largest in enumerate(amax):
        rows = rows_SI[expert_S == expert]
        expected = chosen.qdq_input(rows, input_scale=chosen.input_scale(largest))
        torch.testing.assert_close(found_SI[expert_S == expert], expected, rtol=0.01, atol=0.01)
    assert rounding.rows == 6
    assert (int(rounding.beyond) > 0) is each


def test_the_shipped_coverage_parts_texts_that_cost_from_those_that_do_not() -> None:
    """Of texts that were measured on trained routers; 5 % more divergence is a cost."""
    passed, failed = 0, 0
    for row in map(json.loads, LEDGER.read_text("utf-8").splitlines()):
        if not row["claim"].startswith("Thin experts of a trained router"):
            continue
        found = {name: [float(n) for n in NUMBER.findall(v)] for name, v in row["values"].items()}
        *_, least = found[next(name for name in found if name.startswith("mixed, all"))]
        for name, (share, *_, whole) in found.items():
            wanted = load_recipe(Request(model="canary", qformat="nvfp4")).calibration.coverage
            assert wanted.min_tokens == 1, "the share that is taken from the row"
            costs = whole > 1.05 * least
            assert (share / 100 > wanted.max_thin) == costs, name
            passed, failed = passed + (not costs), failed + costs
    assert passed > 20
    assert failed >= 4
