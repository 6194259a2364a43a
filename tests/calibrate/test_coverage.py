"""Coverage: experts that saw too few tokens are named, and more text is run until they have."""

from pathlib import Path

import pytest

from harness.artifacts import CoverageSpec, ExpertCoverage, thin_experts
from tests.calibrate.conftest import MakeCase

LAYER = "model.layers.0.mlp.experts"


def _layer(*tokens: int, projection: str = "down_proj") -> ExpertCoverage:
    return ExpertCoverage(experts=LAYER, projection=projection, calls=tokens, tokens=tokens)


def test_experts_under_the_threshold_are_named_the_thinnest_first() -> None:
    thin = thin_experts([_layer(9, 0, 3, 20)], CoverageSpec(min_tokens=9, max_thin=0.5))
    assert thin is not None
    assert (thin.num_thin, thin.num_projections, thin.fewest) == (2, 4, 0)
    assert thin.examples == (f"{LAYER}.1.down_proj", f"{LAYER}.2.down_proj")
    assert not thin.too_many
    assert str(thin).startswith("2 of 4 projections of experts saw fewer than 9 tokens")


@pytest.mark.parametrize(("allowed", "too_many"), [(0.0, True), (0.24, True), (0.25, False)])
def test_more_than_the_allowed_share_is_too_many(allowed: float, *, too_many: bool) -> None:
    thin = thin_experts([_layer(9, 0, 9, 9)], CoverageSpec(min_tokens=1, max_thin=allowed))
    assert thin is not None
    assert thin.too_many is too_many
    assert "1 of 4 projections of experts saw no token" in str(thin)


def test_each_projection_counts_by_itself() -> None:
    layers = [_layer(5, 5, projection="gate_up_proj"), _layer(5, 0)]
    thin = thin_experts(layers, CoverageSpec(min_tokens=1, max_thin=0.0))
    assert thin is not None
    assert (thin.num_thin, thin.num_projections) == (1, 4)


def test_a_model_without_routed_experts_has_no_coverage() -> None:
    assert thin_experts([], CoverageSpec(min_tokens=9, max_thin=0.0)) is None


@pytest.mark.parametrize("layerwise", [False, True])
def test_more_samples_are_run_until_the_experts_are_covered(
    tiny_qwen3_5_moe: Path,
    make_case: MakeCase,
    layerwise: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    first = make_case(tiny_qwen3_5_moe, size=2, layerwise=layerwise).run()
    fewest = min(min(layer.tokens) for layer in first.coverage)
    wanted = CoverageSpec(min_tokens=fewest + 1, max_thin=0.0, max_size=12)
    covered = make_case(tiny_qwen3_5_moe, size=2, layerwise=layerwise, coverage=wanted).run()
    assert 2 < covered.num_samples <= 12
    assert covered.num_samples % 2 == 0
    assert min(min(layer.tokens) for layer in covered.coverage) > fewest
    # Ranges only widen, and tokens only add up.
    assert all(covered.input_amax[name] >= seen for name, seen in first.input_amax.items())
    assert covered.num_tokens == sum(
        sum(layer.tokens) for layer in covered.coverage if layer.projection == "down_proj"
    ) // (2 * len([c for c in covered.coverage if c.projection == "down_proj"]))


def test_all_samples_are_run_where_no_number_of_them_is_enough(
    tiny_qwen3_5_moe: Path, make_case: MakeCase
) -> None:
    wanted = CoverageSpec(min_tokens=10**6, max_thin=0.0, max_size=100)
    stats = make_case(tiny_qwen3_5_moe, size=5, coverage=wanted).run()
    assert stats.num_samples == 12
    thin = thin_experts(stats.coverage, wanted)
    assert thin is not None
    assert thin.too_many


def test_no_more_is_run_than_was_asked_for_where_experts_are_covered(
    tiny_qwen3_5_moe: Path, make_case: MakeCase
) -> None:
    wanted = CoverageSpec(min_tokens=1, max_thin=1.0, max_size=12)
    assert make_case(tiny_qwen3_5_moe, size=4, coverage=wanted).run().num_samples == 4
