"""Experts in one grouped product show what experts one by one show, in every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.artifacts import ExpertCoverage
from harness.calibrate import forward
from harness.calibrate.observer import Observer
from harness.errors import ReasonCode, RejectedError
from harness.models import decoder_layers, experts_run, load_model, tap_linears
from tests.calibrate.conftest import Case, MakeCase

ROUTED = ("qwen3_5_moe", "qwen3_moe", "mixtral")
ONE_ROUNDING = 2.0**-7
"""Between two neighbours of bfloat16: what one rounding of the intermediate may make of it."""


def layers_with_inputs(case: Case) -> list[tuple[nn.Module, nn.Module, Any, Any]]:
    """Return the model and its decoder layers, each with what an eager forward gives it."""
    model = load_model(case.source, case.inventory, device="cpu", dtype=torch.bfloat16)
    seen: list[tuple[nn.Module, nn.Module, Any, Any]] = []

    def keep(layer: nn.Module, arguments: object, options: object) -> None:
        seen.append((model, layer, arguments, options))

    hooks = [
        layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in decoder_layers(model)
    ]
    ids_BT = torch.randint(0, 250, (4, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), experts_run(model, "eager"):
        model(input_ids=ids_BT, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def observed(case: Case, given: tuple[nn.Module, nn.Module, Any, Any], way: str) -> Observer:
    model, layer, arguments, options = given
    observer = Observer(case.inventory, case.plan)
    on_grouped = observer.see_grouped if way == "grouped" else None
    tap = tap_linears(model, observer.see_input, on_grouped)
    with torch.inference_mode(), experts_run(model, way), tap:
        layer(*arguments, **options)
    return observer


def seen_by(observer: Observer) -> dict[str, float]:
    return {name: float(value) for name, value in observer._amax.items()}  # noqa: SLF001  # of one layer


def of_layer(observer: Observer) -> list[ExpertCoverage]:
    return [one for one in observer.counts() if any(one.tokens)]


@pytest.mark.parametrize("family", ROUTED)
def test_given_the_same_input_each_layer_shows_the_same(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    case = make_case(tiny_models[family])
    layers = layers_with_inputs(case)
    assert len(layers) > 1
    for given in layers:
        eager, grouped = (observed(case, given, way) for way in ("eager", "grouped"))
        assert of_layer(grouped) == of_layer(eager) != []
        theirs = seen_by(eager)
        mine = seen_by(grouped)
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            is_intermediate = "experts.down_proj" in name
            assert value == pytest.approx(theirs[name], rel=ONE_ROUNDING if is_intermediate else 0)


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("family", ROUTED)
def test_a_grouped_calibration_ends_like_an_eager_one(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str, *, layerwise: bool
) -> None:
    eager = make_case(tiny_models[family], layerwise=layerwise).run()
    grouped = make_case(tiny_models[family], layerwise=layerwise, experts="grouped").run()
    assert grouped.weight_amax == eager.weight_amax
    assert grouped.input_amax.keys() == eager.input_amax.keys()
    # Other sums of rounded values: a few roundings apart after all layers.
    assert grouped.input_amax == pytest.approx(eager.input_amax, rel=0.05)
    assert [sum(one.tokens) for one in grouped.coverage] == [
        sum(one.tokens) for one in eager.coverage
    ]


def test_layer_by_layer_and_whole_are_the_same_bits(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    model = tiny_models["qwen3_5_moe"]
    whole = make_case(model, experts="grouped").run()
    assert make_case(model, experts="grouped", layerwise=True).run() == whole


def test_a_grouped_product_that_is_not_looked_at_ends_the_run(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Observer, "see_grouped", lambda *_: None)
    with pytest.raises(RejectedError, match="no expert was observed") as caught:
        make_case(tiny_models["qwen3_moe"], experts="grouped").run()
    assert caught.value.reason is ReasonCode.NO_EXPERT_OBSERVED


def test_experts_that_know_no_grouped_way_run_one_by_one_and_are_seen(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "experts_run", lambda model, _: experts_run(model, "eager"))
    model = tiny_models["qwen3_moe"]
    assert make_case(model, experts="grouped").run() == make_case(model).run()
