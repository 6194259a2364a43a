"""Plans and recipes for calibration, made by hand: no other room is needed to test this one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.artifacts import (
    CalibrationSpec,
    CalibrationStats,
    Inventory,
    KvFormat,
    Linear,
    PlannedLinear,
    QuantPlan,
    Recipe,
)
from harness.calibrate import calibrate
from harness.models import Source, open_source, read_inventory
from tests.nouns import recipe_of

_UNPLANNED = ("visual", "in_proj_a", "in_proj_b", "shared_expert_gate")


class Case(NamedTuple):
    """Everything that calibrate takes."""

    recipe: Recipe
    source: Source
    inventory: Inventory
    plan: QuantPlan

    def run(self) -> CalibrationStats:
        return calibrate(self.recipe, self.source, self.inventory, self.plan)


MakeCase = Callable[..., Case]


def is_planned(linear: Linear) -> bool:
    """Whether the usual plan has a layer: all of the text model, the output layer too."""
    return not any(part in linear.name for part in _UNPLANNED)


def make_spec(data: Path | str, **changes: object) -> CalibrationSpec:
    options: dict[str, object] = {
        "size": 12,
        "seq": 64,
        "seed": 0,
        "batch_tokens": 256,
        "layerwise": False,
        "experts": "eager",
    }
    return CalibrationSpec(data=str(data), **options | changes)  # type: ignore[arg-type]  # of test


@pytest.fixture
def make_case(calibration_jsonl: Path) -> MakeCase:
    """Return a function that prepares a calibration of a model's folder."""

    def make(
        model: Path,
        *,
        data: Path | str = calibration_jsonl,
        planned: Callable[[Linear], bool] = is_planned,
        inputs: str | None = "nvfp4",
        kv_cache: KvFormat = KvFormat.FP8,
        **spec: object,
    ) -> Case:
        source = open_source(str(model))
        inventory = read_inventory(source)
        plan = QuantPlan(
            scheme="NVFP4",
            kv_cache=kv_cache,
            quantized=tuple(
                PlannedLinear(linear=x, weight_format="nvfp4", input_format=inputs, rule="*")
                for x in inventory.linears
                if planned(x)
            ),
            excluded=(),
            attentions=inventory.attentions,
            digest="",
        )
        recipe = recipe_of(make_spec(data, **spec), model=str(model), kv_cache=kv_cache)
        return Case(recipe=recipe, source=source, inventory=inventory, plan=plan)

    return make
