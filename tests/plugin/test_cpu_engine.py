"""vLLM's real loaders on CPU: every format answers, and every damage is seen where it is."""

from typing import Any

import pytest

from .conftest import SHARING

Driven = dict[str, Any]
EXPERT_SCALES = 4 * 16 * 2
"""Of four layers with 16 experts and two products each."""
SOUND = ["bf16", "nvfp4", "nvfp4_kv_fp8", "nvfp4_experts_only", "w4a16_nvfp4", "fp8"]
SOUND += ["mixed", "mixed_w4a16"]
NARROW = "FP8 KV cache on CPU requires x86 with AVX-512 or AMX"
LINEAR = {
    "bf16": "UnquantizedLinearMethod",
    "nvfp4": "CpuEmulationNvFp4LinearKernel",
    "w4a16_nvfp4": "CpuEmulationNvFp4W4A16LinearKernel",
    "fp8": "CpuEmulationFp8LinearKernel",
    "mixed": "CpuEmulationFp8LinearKernel",
    "mixed_w4a16": "CpuEmulationFp8LinearKernel",
}
EXPERTS = {
    "bf16": "UNQUANTIZED CPU CPUUnquantizedExperts",
    "nvfp4": "NVFP4 EMULATION CpuEmulationNvFp4Experts",
    "nvfp4_experts_only": "NVFP4 EMULATION CpuEmulationNvFp4Experts",
    "w4a16_nvfp4": "NVFP4 EMULATION CpuEmulationNvFp4W4A16Experts",
    "fp8": "FP8 EMULATION CpuEmulationFp8Experts",
    "mixed": "NVFP4 EMULATION CpuEmulationNvFp4Experts",
    "mixed_w4a16": "NVFP4 EMULATION CpuEmulationNvFp4W4A16Experts",
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_answers(driven: Driven, name: str) -> None:
    if NARROW in (driven[name].error or ""):
        pytest.skip(f"vLLM on this machine: {NARROW}")
    assert driven[name].error is None
    assert min(driven[name].accuracy.values()) >= 0.9


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_is_loaded_without_a_rest(driven: Driven, name: str) -> None:
    report = driven[name].report
    assert (report["unfilled"], report["untaken"]) == ([], [])
    assert (report["num_unfilled"], report["num_untaken"]) == (0, 0)
    assert report["num_filled"] == report["num_parameters"] > 200
    assert report["num_taken"] + report["set_aside"] == report["num_tensors"]


@pytest.mark.parametrize("name", [name for name in SOUND if name not in {"bf16", "mixed_w4a16"}])
def test_a_sound_model_has_each_experts_scale_in_its_kernel(driven: Driven, name: str) -> None:
    report = driven[name].report
    assert report["missing"] == {}
    told = report["expert_scales"]["weights"]
    assert (told["num"], told["num_own"]) == (EXPERT_SCALES, EXPERT_SCALES)
    for kind in report["expert_scales"].values():
        assert (kind["num_wrong"], kind["examples"]) == (0, [])


def test_one_experts_scale_on_all_within_the_engine_is_named(driven: Driven) -> None:
    """The files are right, and everything in them was taken: the kernels' scales alone tell."""
    report = driven[SHARING].report
    assert (report["num_unfilled"], report["num_untaken"]) == (0, 0)
    told = report["expert_scales"]["weights"]
    assert told["num_wrong"] > 40
    assert all(name.endswith(".w13_weight_scale") for name in told["examples"])


@pytest.mark.parametrize("name", LINEAR)
def test_the_report_names_the_linear_kernel(driven: Driven, name: str) -> None:
    assert LINEAR[name] in driven[name].report["kernels"]["linear"]


@pytest.mark.parametrize("name", EXPERTS)
def test_the_report_names_the_experts(driven: Driven, name: str) -> None:
    assert driven[name].report["kernels"]["experts"] == [EXPERTS[name]]


@pytest.mark.parametrize(
    ("name", "kind", "scales"),
    [
        ("nvfp4", "auto", "none"),
        ("nvfp4_kv_fp8", "fp8_e4m3", "calibrated"),
        ("mixed_w4a16", "fp8_e4m3", "calibrated"),
    ],
)
def test_the_report_names_the_cache(driven: Driven, name: str, kind: str, scales: str) -> None:
    report = driven[name].report
    assert report["kernels"]["attention"] == ["CPU_ATTN", "GDN_ATTN"]
    assert report["kernels"]["kv_cache"] == [kind]
    assert report["kv_scales"] == scales


@pytest.mark.parametrize("name", ["nvfp4", "w4a16_nvfp4", "fp8"])
def test_the_kernels_compute_what_vllm_defines(driven: Driven, name: str) -> None:
    """What is left is the rounding of sums to bfloat16, and of the few ties that it tips."""
    assert driven[name].numerics["linear"] < 0.002
    assert driven[name].numerics["experts"] < 0.005


def test_deleted_input_scales_are_named_and_answer_salad(driven: Driven) -> None:
    report = driven["no_input_scales"].report
    assert report["num_unfilled"] == 192
    assert len(report["unfilled"]) == 50
    expected = "language_model.model.layers.0.mlp.experts.{}.{}_proj.input_scale"
    assert expected.format(0, "gate") in report["unfilled"]
    assert expected.format(3, "up") in report["unfilled"]
    assert all(".experts." in n and n.endswith(".input_scale") for n in report["unfilled"])
    assert max(driven["no_input_scales"].accuracy.values()) <= 0.1


def test_the_scales_of_fused_weights_are_believed(driven: Driven) -> None:
    """The loader is vLLM's own: it takes gate's scale for both, and the model breaks."""
    assert driven["swapped_scales"].report["num_unfilled"] == 0
    assert max(driven["swapped_scales"].accuracy.values()) <= 0.5


def test_a_tensor_that_nothing_takes_is_named(driven: Driven) -> None:
    report = driven["strange_expert"].report
    assert report["untaken"] == ["model.language_model.layers.0.mlp.experts.16.gate_proj.weight"]


def test_a_load_that_stops_halfway_has_no_report(driven: Driven) -> None:
    loaded = driven["strange_scale"]
    assert "no module or parameter named" in loaded.error
    assert loaded.report is None


def test_a_hole_that_holds_a_plausible_value_is_named(driven: Driven) -> None:
    assert driven["fp8_holes"].report["unfilled"] == [
        "language_model.model.layers.1.mlp.experts.3.up_proj.input_scale",
        "language_model.model.layers.2.mlp.experts.5.down_proj.weight_scale",
    ]


def test_a_hole_in_a_fused_integer_weight_is_named(driven: Driven) -> None:
    """Codes have no NaN, and q shares its parameter with k and v."""
    assert driven["q_hole"].report["unfilled"] == [
        "language_model.model.layers.3.self_attn.q_proj.weight"
    ]
