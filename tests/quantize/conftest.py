"""Plans for the tiny models, made by the shipped recipes, and statistics made from the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.artifacts import CalibrationStats, Inventory, QuantPlan
from harness.models import Source, TensorReader, open_source, read_inventory
from harness.recipe import Request, load_recipe, plan


class Planned(NamedTuple):
    """What quantize and export take."""

    source: Source
    plan: QuantPlan
    stats: CalibrationStats


def stats_of(source: Source, inventory: Inventory) -> CalibrationStats:
    """True ranges of the weights, and an own invented one for every input."""
    with TensorReader(source) as reader:
        weight_amax = {
            linear.name: reader.matrix(linear.source).abs().max().item()
            for linear in inventory.linears
        }
    names = sorted({linear.input_quantizer for linear in inventory.linears})
    input_amax = {name: 1.0 + index / 8 for index, name in enumerate(names)}
    for index, attention in enumerate(inventory.attentions):
        input_amax |= {attention.k_quantizer: 3.0 + index, attention.v_quantizer: 5.0 + index}
    return CalibrationStats(
        weight_amax=weight_amax, input_amax=input_amax, coverage=(), num_samples=8, num_tokens=512
    )


@pytest.fixture(scope="session")
def planned() -> Callable[..., Planned]:
    def make(model: Path, qformat: str = "nvfp4", kv_cache: str = "none") -> Planned:
        request = Request(model=str(model), qformat=qformat, kv_cache=kv_cache, device="cpu")
        source = open_source(str(model))
        inventory = read_inventory(source)
        chosen = plan(load_recipe(request), inventory)
        return Planned(source, chosen, stats_of(source, inventory))

    return make
