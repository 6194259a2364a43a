import dataclasses
import fnmatch

import pytest

from harness.artifacts import Inventory, Matching, Rule
from harness.errors import ReasonCode, RecipeError
from harness.recipe.rules import _Matcher, match_rules, names_of
from tests.recipe.conftest import linear, routed


def rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(quantizer=pattern, format=form) for pattern, form in pairs)


def quantized(
    inventory: Inventory, *pairs: tuple[str, str], exclude: tuple[str, ...] = ()
) -> set[str]:
    matches = match_rules(rules(*pairs), exclude, inventory)
    return {m.linear.name for m in matches if m.weight.format is not None}


@pytest.mark.parametrize(
    "pattern",
    [
        "*mlp.experts*weight_quantizer",
        "*mlp.experts*weight_quantizers",
        "*mlp.experts*weight_quantizers.*",
        "*.experts.*weight_quantizer",
        "*.experts.*_proj.weight_quantizer",
    ],
)
def test_every_spelling_of_an_experts_rule_reaches_every_expert(
    moe: Inventory, pattern: str
) -> None:
    found = quantized(moe, (pattern, "nvfp4"))
    assert found == {one.name for one in moe.linears if one.is_routed}


def test_an_experts_rule_leaves_the_shared_expert_alone(moe: Inventory) -> None:
    assert not any("shared" in n for n in quantized(moe, ("*.experts.*weight_quantizer", "fp8")))


def test_the_last_rule_that_matches_wins(moe: Inventory) -> None:
    found = quantized(moe, ("*weight_quantizer", "nvfp4"), ("*self_attn*", "none"))
    assert not any("self_attn" in name for name in found)
    assert any("experts" in name for name in found)


def test_exclusions_win_over_rules_and_may_match_nothing(moe: Inventory) -> None:
    found = quantized(moe, ("*weight_quantizer", "nvfp4"), exclude=("*lm_head*", "*no_such*"))
    assert "lm_head" not in found


def test_the_rule_that_excluded_a_module_is_named(moe: Inventory) -> None:
    matches = match_rules(rules(("*weight_quantizer", "nvfp4")), ("*lm_head*",), moe)
    head = next(m for m in matches if m.linear.name == "lm_head")
    assert head.weight.rule == "*lm_head*"


def test_a_rule_that_matches_nothing_names_itself_and_the_nearest(moe: Inventory) -> None:
    with pytest.raises(RecipeError, match=r"'\*mlp\.expertz\*weight_quantizer'.*experts") as caught:
        quantized(moe, ("*mlp.expertz*weight_quantizer", "nvfp4"))
    assert caught.value.reason is ReasonCode.RULE_MATCHES_NOTHING


def test_a_model_without_linear_layers_has_nothing_to_quantize(dense: Inventory) -> None:
    """As GPT-2, whose layers are transformers' own Conv1D."""
    with pytest.raises(RecipeError, match=r"model has nothing to quantize: no linear layer"):
        quantized(dataclasses.replace(dense, linears=()), ("*weight_quantizer", "nvfp4"))


def test_an_experts_rule_on_a_dense_model_says_that_there_are_no_experts(dense: Inventory) -> None:
    with pytest.raises(RecipeError, match=r"no routed experts") as caught:
        quantized(dense, ("*.experts.*weight_quantizer", "nvfp4"))
    assert caught.value.reason is ReasonCode.RULE_MATCHES_NOTHING


@pytest.mark.parametrize(
    "pattern", ["*gate_up_proj_weight_quantizers.1", "*.experts.2.down_proj.input_quantizer"]
)
def test_a_rule_for_some_experts_of_a_layer_is_refused(moe: Inventory, pattern: str) -> None:
    with pytest.raises(RecipeError, match=r"1 of 4 experts of 'model\.layers\.0") as caught:
        quantized(moe, (pattern, "nvfp4"))
    assert caught.value.reason is ReasonCode.RULE_MATCHES_SOME_EXPERTS


def test_an_exclusion_of_some_experts_is_refused(moe: Inventory) -> None:
    with pytest.raises(RecipeError, match=r"1 of 4 experts"):
        quantized(moe, ("*weight_quantizer", "nvfp4"), exclude=("*weight_quantizers.3",))


def test_a_rule_whose_every_match_is_decided_by_others_is_refused(moe: Inventory) -> None:
    with pytest.raises(RecipeError, match=r"no effect.*'\*lm_head\*'"):
        quantized(
            moe,
            ("*weight_quantizer", "nvfp4"),
            ("lm_head.weight_quantizer", "nvfp4"),
            exclude=("*lm_head*",),
        )


PATTERNS = (
    "*",
    "*weight_quantizer",
    "*experts*",
    "*.1.*",
    "*layers.[1].*",
    "*layers.?.*",
    "*layers.?.*input_quantizer",
    "*conv1d*",
    "*0*",
    "*proj_weight_quantizers.1",
    "*experts.gate_up_proj_weight_quantizers",
    "model*1*up_proj*",
    "*layers.1*",
)


@pytest.mark.parametrize("matching", Matching)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_reaches_what_it_fits_layer_by_layer(pattern: str, matching: Matching) -> None:
    linears = [
        *(routed(layer, expert, "up_proj") for layer in (0, 1, 11) for expert in (0, 1, 10, 11)),
        *(linear(f"model.layers.{n}.mixer.conv{k}d") for n in (0, 1, 11) for k in (1, 2)),
        linear("model.layers.1.q_proj"),
    ]
    meant = {
        f"{one.name} {kind}"
        for one in linears
        for kind in ("weight", "input")
        for name in names_of(getattr(one, f"{kind}_quantizer"), one, matching=matching)
        if fnmatch.fnmatchcase(name, pattern)
    }
    assert _Matcher(linears, matching).hits(pattern) == meant
