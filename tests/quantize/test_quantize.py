"""What stands in the place of each source tensor."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.artifacts import QuantPlan
from harness.errors import CorruptWeightError, ReasonCode, RecipeError, RejectedError
from harness.formats import get_format
from harness.quantize import quantize
from tests.stored import read_tensors, same_bytes

Make = Callable[..., Any]
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def everything(planned: Make, model: Path, *args: str) -> dict[str, Tensor]:
    made = planned(model, *args)
    stream = quantize(made.source, made.plan, made.stats, device="cpu")
    return {name: t for quantized in stream for name, t in quantized.tensors.items()}


def decoded(tensors: dict[str, Tensor], name: str) -> Tensor:
    """The weight of an nvfp4 layer, decoded without harness."""
    packed = tensors[f"{name}.weight"]
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).reshape(packed.shape[0], -1)
    scale = tensors[f"{name}.weight_scale"].float().repeat_interleave(16, dim=1)
    return E2M1[codes.long()] * scale * tensors[f"{name}.weight_scale_2"]


def test_every_expert_of_a_fused_tensor_gets_its_own_layer(
    planned: Make, tiny_qwen3_5_moe: Path
) -> None:
    tensors = everything(planned, tiny_qwen3_5_moe, "nvfp4_experts_only")
    source = read_tensors(tiny_qwen3_5_moe)
    experts = "model.language_model.layers.1.mlp.experts"
    assert f"{experts}.gate_up_proj" not in tensors
    for expert in range(8):
        gate, up = source[f"{experts}.gate_up_proj"][expert].float().chunk(2)
        down = source[f"{experts}.down_proj"][expert].float()
        for projection, weight in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
            got = decoded(tensors, f"{experts}.{expert}.{projection}")
            assert got.shape == weight.shape
            assert (got - weight).abs().max() <= weight.abs().max() / 6 * 1.07


def test_gate_and_up_of_an_expert_share_the_scale_of_the_larger_one(
    planned: Make, tiny_qwen3_5_moe: Path
) -> None:
    tensors = everything(planned, tiny_qwen3_5_moe)
    source = read_tensors(tiny_qwen3_5_moe)
    experts = "model.language_model.layers.0.mlp.experts"
    for expert in range(8):
        amax = source[f"{experts}.gate_up_proj"][expert].float().abs().max()
        for projection in ("gate_proj", "up_proj"):
            scale = tensors[f"{experts}.{expert}.{projection}.weight_scale_2"]
            assert scale.item() == (amax / 2688).item()


def test_fused_dense_layers_share_their_global_scales_in_nvfp4(
    planned: Make, tiny_qwen3: Path
) -> None:
    tensors = everything(planned, tiny_qwen3)
    for group in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        parent = "self_attn" if "q_proj" in group else "mlp"
        for suffix in ("weight_scale_2", "input_scale"):
            scales = {tensors[f"model.layers.1.{parent}.{p}.{suffix}"].item() for p in group}
            assert len(scales) == 1


def test_dense_fp8_layers_keep_their_own_weight_scales(planned: Make, tiny_qwen3: Path) -> None:
    tensors = everything(planned, tiny_qwen3, "fp8")
    source = read_tensors(tiny_qwen3)
    for projection in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.0.self_attn.{projection}"
        amax = source[f"{name}.weight"].float().abs().max()
        assert tensors[f"{name}.weight_scale"].item() == (amax / 448).item()


def test_routed_fp8_experts_share_the_scale_of_gate_and_up(
    planned: Make, tiny_mixtral: Path
) -> None:
    tensors = everything(planned, tiny_mixtral, "fp8")
    for expert in range(8):
        names = [f"model.layers.0.block_sparse_moe.experts.{expert}.{w}" for w in ("w1", "w3")]
        assert len({tensors[f"{name}.weight_scale"].item() for name in names}) == 1


def test_a_dense_fp8_layer_of_zeros_takes_the_scale_of_its_group(
    planned: Make, tiny_qwen3: Path
) -> None:
    made = planned(tiny_qwen3, "fp8")
    own = dict(made.stats.weight_amax)
    own["model.layers.0.self_attn.k_proj"] = 0.0
    stats = dataclasses.replace(made.stats, weight_amax=own)
    scales = {
        name: t.item()
        for quantized in quantize(made.source, made.plan, stats)
        for name, t in quantized.tensors.items()
        if name.startswith("model.layers.0.self_attn") and name.endswith("weight_scale")
    }
    largest = max(own[f"model.layers.0.self_attn.{p}_proj"] for p in "qv")
    k_scale = scales["model.layers.0.self_attn.k_proj.weight_scale"]
    assert k_scale == (torch.tensor(largest) / 448).item()


def test_both_layouts_of_the_same_weights_give_the_same_tensors(
    planned: Make, tiny_qwen3_5_moe: Path, tiny_qwen3_5_moe_per_expert: Path
) -> None:
    fused = everything(planned, tiny_qwen3_5_moe)
    single = everything(planned, tiny_qwen3_5_moe_per_expert)
    assert set(single) == {name for name in fused if not name.startswith("mtp.")}
    for name, tensor in single.items():
        assert same_bytes(tensor, fused[name]), name


def test_untouched_tensors_are_the_source_byte_for_byte(
    planned: Make, tiny_qwen3_5_moe: Path
) -> None:
    made = planned(tiny_qwen3_5_moe)
    source = read_tensors(tiny_qwen3_5_moe)
    replaced = {p.linear.source.tensor for p in made.plan.quantized}
    kept = {
        q.source: q.tensors
        for q in quantize(made.source, made.plan, made.stats)
        if q.format == "none"
    }
    assert set(kept) == set(source) - replaced
    assert any(name.startswith("mtp.") for name in kept)
    for name, tensors in kept.items():
        assert list(tensors) == [name]
        assert same_bytes(tensors[name], source[name])


def test_tensors_come_in_the_order_of_the_source_files(
    planned: Make, tiny_qwen3_5_moe_sharded: Path
) -> None:
    made = planned(tiny_qwen3_5_moe_sharded)
    order = [q.source for q in quantize(made.source, made.plan, made.stats)]
    assert list(dict.fromkeys(order)) == list(made.source.tensors)


def test_weight_only_checkpoints_have_no_input_scale(planned: Make, tiny_qwen3: Path) -> None:
    assert not [n for n in everything(planned, tiny_qwen3, "w4a16_nvfp4") if "input_scale" in n]


def test_calibrated_keys_and_values_get_one_scale_a_layer(
    planned: Make, tiny_qwen3_5_moe: Path
) -> None:
    tensors = everything(planned, tiny_qwen3_5_moe, "nvfp4", "fp8")
    attention = "model.language_model.layers.3.self_attn"
    scales = {name: t for name, t in tensors.items() if name.endswith(("k_scale", "v_scale"))}
    assert set(scales) == {f"{attention}.k_proj.k_scale", f"{attention}.v_proj.v_scale"}
    assert scales[f"{attention}.k_proj.k_scale"].item() == (torch.tensor(3.0) / 448).item()
    assert all(t.dtype == torch.float32 and t.shape == () for t in scales.values())


def test_cast_keys_and_values_get_no_scale(planned: Make, tiny_qwen3: Path) -> None:
    tensors = everything(planned, tiny_qwen3, "nvfp4", "fp8_cast")
    assert not [name for name in tensors if name.endswith(("k_scale", "v_scale"))]


@pytest.mark.parametrize("victim", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_nan_anywhere_in_the_source_ends_the_stream_and_names_the_tensor(
    planned: Make, tiny_qwen3: Path, tmp_path: Path, victim: str
) -> None:
    tensors = read_tensors(tiny_qwen3)
    tensors[victim] = tensors[victim].clone()
    tensors[victim].view(-1)[7] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_qwen3 / "config.json").read_bytes())
    made = planned(tmp_path)
    clean = planned(tiny_qwen3).stats
    with pytest.raises(CorruptWeightError, match=victim.removesuffix(".weight")) as caught:
        list(quantize(made.source, made.plan, clean))
    assert caught.value.reason is ReasonCode.NON_FINITE_WEIGHT


def test_a_layer_that_calibration_never_saw_is_refused(planned: Make, tiny_qwen3: Path) -> None:
    made = planned(tiny_qwen3)
    seen = dict(made.stats.input_amax)
    del seen["model.layers.1.mlp.down_proj.input_quantizer"]
    with pytest.raises(
        RejectedError, match=r"layers\.1\.mlp\.down_proj\.input_quantizer"
    ) as caught:
        list(quantize(made.source, made.plan, dataclasses.replace(made.stats, input_amax=seen)))
    assert caught.value.reason is ReasonCode.QUANTIZER_NOT_OBSERVED


@pytest.mark.parametrize("seen", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "quantizer", ["mlp.down_proj.input_quantizer", "self_attn.k_bmm_quantizer"]
)
def test_no_scale_is_made_up_for_a_range_of_which_none_can_be_made(
    planned: Make, tiny_qwen3: Path, quantizer: str, seen: float
) -> None:
    made = planned(tiny_qwen3, "nvfp4", "fp8")
    name = next(name for name in made.stats.input_amax if name.endswith(f"layers.1.{quantizer}"))
    stats = dataclasses.replace(made.stats, input_amax={**made.stats.input_amax, name: seen})
    with pytest.raises(RejectedError, match=f"calibration saw {seen}") as caught:
        list(quantize(made.source, made.plan, stats))
    assert caught.value.reason is ReasonCode.UNUSABLE_RANGE


def test_a_plan_for_half_a_tensor_is_refused(planned: Make, tiny_qwen3_5_moe: Path) -> None:
    made = planned(tiny_qwen3_5_moe)
    half = [p for p in made.plan.quantized if not p.linear.name.endswith("experts.3.up_proj")]
    plan: QuantPlan = dataclasses.replace(made.plan, quantized=tuple(half))
    with pytest.raises(RecipeError, match="all of it or none"):
        list(quantize(made.source, plan, made.stats))


def test_a_weight_and_its_scales_have_the_types_that_engines_read(
    planned: Make, tiny_mixtral: Path
) -> None:
    tensors = everything(planned, tiny_mixtral)
    name = "model.layers.1.block_sparse_moe.experts.5.w2"
    types = {
        s: tensors[f"{name}.{s}"].dtype
        for s in get_format("nvfp4").required_suffixes(with_input=True)
    }
    assert types == {
        "weight": torch.uint8,
        "weight_scale": torch.float8_e4m3fn,
        "weight_scale_2": torch.float32,
        "input_scale": torch.float32,
    }
