"""Checkpoints whose scales are missing, broken or contradictory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.artifacts import EngineSpec
from harness.errors import EngineError, ReasonCode
from harness.models import open_source, read_inventory
from harness.serve.computable import read_computable
from harness.serve.reference import serve_reference as serve
from harness.serve.scales import Scales, Site, quantized_linears, read_scales

Make = Callable[..., Any]
EXPERTS = "model.language_model.layers.1.mlp.experts"
ATTENTION = "model.language_model.layers.3.self_attn"


def refusal(engine: EngineSpec, folder: Path) -> EngineError:
    with pytest.raises(EngineError) as caught, serve(engine, folder):
        pass
    return caught.value


def without(suffix: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if n.endswith(suffix)]:
            del tensors[name]

    return change


def test_missing_expert_input_scales_are_refused_with_their_number(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if ".experts." in n and n.endswith(".input_scale")]:
            del tensors[name]

    error = refusal(engine, damaged(tiny_qwen3_5_moe, change))
    assert error.reason is ReasonCode.SCALE_MISSING
    first = "model.language_model.layers.0.mlp.experts.0.gate_proj.input_scale"
    assert f"96 of 96 expert input_scale tensors are missing, first: '{first}'" in str(error)


def test_one_missing_scale_is_enough(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = damaged(tiny_qwen3_5_moe, without(f"{EXPERTS}.3.up_proj.weight_scale_2"))
    error = refusal(engine, folder)
    assert error.reason is ReasonCode.SCALE_MISSING
    assert "1 of 96 expert weight_scale_2 tensors are missing" in str(error)


def test_missing_block_scales_are_named(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = damaged(tiny_qwen3_5_moe, without(f"{ATTENTION}.q_proj.weight_scale"))
    assert "dense weight_scale tensors are missing" in str(refusal(engine, folder))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_scale_is_refused(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec, value: float
) -> None:
    name = f"{EXPERTS}.3.up_proj.input_scale"

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = torch.tensor(value)

    error = refusal(engine, damaged(tiny_qwen3_5_moe, change))
    assert error.reason is ReasonCode.SCALE_MISSING
    assert "scales are not positive and finite" in str(error)
    assert f"'{name}' is {value:g}" in str(error)


def test_a_block_scale_of_nan_is_refused(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"{EXPERTS}.3.up_proj.weight_scale"].view(torch.uint8)[0, 0] = 0x7F

    assert "block scale" in str(refusal(engine, damaged(tiny_qwen3_5_moe, change)))


def test_one_missing_kv_scale_is_refused(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = damaged(tiny_qwen3_5_moe, without(".k_scale"), "nvfp4", "fp8")
    assert "1 of 2 KV scale tensors are missing" in str(refusal(engine, folder))


def test_calibrated_kv_scales_are_never_replaced_by_one(
    damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        without(".k_scale")(tensors)
        without(".v_scale")(tensors)

    error = refusal(engine, damaged(tiny_qwen3_5_moe, change, "nvfp4", "fp8"))
    assert (error.reason, "2 of 2 KV" in str(error)) == (ReasonCode.SCALE_MISSING, True)


def test_a_quantized_layer_that_is_declared_unquantized_is_refused(
    reconfigured: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    def change(values: dict[str, Any]) -> None:
        values["quantization_config"]["ignore"].append(f"{ATTENTION}.o_proj")

    error = refusal(engine, reconfigured(tiny_qwen3_5_moe, "config.json", change))
    assert error.reason is ReasonCode.INTEGRITY_FAILED
    assert f"first '{ATTENTION}.o_proj', stored as U8 and unquantized by declaration" in str(error)


def test_an_ignore_list_that_hits_siblings_is_refused(
    reconfigured: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    """vLLM finds an entry inside other names too, and would leave the experts unloaded."""

    def change(values: dict[str, Any]) -> None:
        values["quantization_config"]["ignore"].append("model.language_model.layers.1.mlp")

    error = refusal(engine, reconfigured(tiny_qwen3_5_moe, "config.json", change))
    assert "layers are stored otherwise" in str(error)
    assert "layers.1.mlp." in str(error)


def test_files_that_declare_two_formats_are_refused(
    reconfigured: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    def change(values: dict[str, Any]) -> None:
        values["quantization"]["quant_algo"] = "FP8"

    error = refusal(engine, reconfigured(tiny_qwen3_5_moe, "hf_quant_config.json", change))
    assert "quant_algo is 'NVFP4' in config.json and 'FP8' in hf_quant_config.json" in str(error)


def test_a_format_of_another_world_is_refused(
    reconfigured: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    def change(values: dict[str, Any]) -> None:
        values["quantization_config"]["quant_algo"] = "W4A16_AWQ"

    folder = reconfigured(tiny_qwen3_5_moe, "config.json", change)
    (folder / "hf_quant_config.json").unlink()
    assert "unknown scheme 'W4A16_AWQ'" in str(refusal(engine, folder))


def merged(folder: Path) -> Scales:
    source = open_source(str(folder))
    inventory, declared = read_inventory(source), read_computable(source)
    return read_scales(source, quantized_linears(source, inventory, declared))


def test_all_experts_of_a_layer_round_inputs_with_the_largest_scale(
    damaged: Make, tiny_qwen3_5_moe: Path
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"{EXPERTS}.3.up_proj.input_scale"] = torch.tensor(7.0)
        tensors[f"{EXPERTS}.4.down_proj.input_scale"] = torch.tensor(9.0)

    inputs = merged(damaged(tiny_qwen3_5_moe, change)).inputs
    assert {inputs[Site(f"{EXPERTS}.gate_up_proj", e)].item() for e in range(8)} == {7.0}
    assert {inputs[Site(f"{EXPERTS}.down_proj", e)].item() for e in range(8)} == {9.0}


def test_fused_dense_layers_take_the_largest_scale_and_experts_the_gates(
    damaged: Make, tiny_qwen3_5_moe: Path
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"{ATTENTION}.k_proj.weight_scale_2"] = torch.tensor(5.0)
        tensors[f"{ATTENTION}.v_proj.input_scale"] = torch.tensor(6.0)
        tensors[f"{EXPERTS}.3.up_proj.weight_scale_2"] = torch.tensor(7.0)
        tensors[f"{EXPERTS}.4.gate_proj.weight_scale_2"] = torch.tensor(8.0)

    scales = merged(damaged(tiny_qwen3_5_moe, change))
    qkv = [f"{ATTENTION}.{p}_proj" for p in "qkv"]
    assert {scales.weights[name].item() for name in qkv} == {5.0}
    assert {scales.inputs[Site(f"{name}.weight", None)].item() for name in qkv} == {6.0}
    assert scales.weights[f"{EXPERTS}.3.up_proj"] == scales.weights[f"{EXPERTS}.3.gate_proj"] < 1
    assert scales.weights[f"{EXPERTS}.4.up_proj"].item() == 8.0


def test_swapped_gate_scales_ruin_the_model(
    exported: Make, damaged: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    """The fault of a real incident: up is computed with the gate's scale, which is not its own."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if n.endswith("gate_proj.weight_scale_2")]:
            tensors[name] = tensors[name] * 4

    text = torch.tensor([[72, 101, 108, 108, 111]])
    answers = []
    for folder in (exported(tiny_qwen3_5_moe), damaged(tiny_qwen3_5_moe, change)):
        with serve(engine, folder) as served, torch.no_grad():
            answers.append(served.model(text).logits)
    assert (answers[0] - answers[1]).norm() > 0.2 * answers[0].norm()


def test_fp8_shards_are_rounded_again_with_the_largest_scale(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = exported(tiny_qwen3_5_moe, "fp8")
    scales = merged(folder).weights
    qkv = [f"{ATTENTION}.{p}_proj" for p in "qkv"]
    assert len({scales[name].item() for name in qkv}) == 1
    with serve(engine, folder) as served:
        for name in qkv:
            weight = served.model.get_parameter(f"{name}.weight")
            codes = (weight / scales[name]).to(torch.float8_e4m3fn)
            assert torch.equal(codes.float() * scales[name], weight)
