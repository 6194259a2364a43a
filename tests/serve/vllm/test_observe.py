"""What is made of a log and of load reports; the log lines are vLLM's own."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Severity
from harness.engines import Demands, read_demands
from harness.errors import ReasonCode
from harness.models import open_source
from harness.serve.vllm.observe import Observed, observe

from . import fake_vllm

NVFP4 = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}))
WARNING = "(EngineCore pid=511) WARNING 11-23 01:12:40 [modelopt.py:1029] "
ERROR, WARN = Severity.ERROR, Severity.WARNING


def observed(
    tmp_path: Path, *, log: str = "", demands: Demands = NVFP4, **changes: object
) -> Observed:
    report: dict[str, Any] = {**fake_vllm.REPORT, **changes}
    (tmp_path / "load_report.rank0.json").write_text(json.dumps(report), encoding="utf-8")
    return observe(demands, records=tmp_path, log=log)


@pytest.mark.parametrize(
    ("line", "name", "severity", "reason"),
    [
        (
            "w1_weight_scale_2 must match w3_weight_scale_2. Accuracy may be affected.",
            "gate-up-scale-mismatch",
            ERROR,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            "w1_weight_global_scale must match w3_weight_global_scale. Accuracy may be affected.",
            "gate-up-scale-mismatch",
            ERROR,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            (
                "In NVFP4 linear, the global scale for input or weight are different for parallel "
                "layers (e.g. q_proj, k_proj, v_proj). This  will likely results in reduce "
                "accuracy."
            ),
            "fused-scale-mismatch",
            ERROR,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            (
                "In NVFP4 linear, the global weight scale differs across parallel layers (e.g. "
                "q_proj, k_proj, v_proj). This will likely reduce accuracy."
            ),
            "fused-scale-mismatch",
            ERROR,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            (
                "In W4A16_NVFP4 linear, the global weight scale (weight_scale_2) differs across "
                "fused parallel layers (e.g. q/k/v_proj). This will likely reduce accuracy."
            ),
            "fused-scale-mismatch",
            ERROR,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            (
                "In NVFP4 linear, the weight global scale is different for parallel layers (e.g. "
                "q_proj, k_proj, v_proj)."
            ),
            "fused-scale-mismatch",
            ERROR,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            (
                "In NVFP4 linear, the activation global scale for inputs are different for MOE w13 "
                "(gate_up_proj) layer or MOE w2 (down_proj). Using a13_scale = a13_scale.max() and "
                "a2_scale = a2_scale.max()."
            ),
            "expert-input-scales-differ",
            WARN,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            (
                "Found input_scales that are not equal for fp8 MoE layer. Using the maximum across "
                "experts for each layer."
            ),
            "expert-input-scales-differ",
            WARN,
            ReasonCode.SCALE_MISMATCH,
        ),
        (
            "Parameter layers.0.mlp.experts.w13_input_scale not found in params_dict, skip loading",
            "parameter-skipped",
            ERROR,
            ReasonCode.LOAD_MISMATCH,
        ),
        (
            (
                "Your GPU does not have native support for FP4 computation but FP4 quantization is "
                "being used. Weight-only FP4 compression will be used leveraging the Marlin kernel."
            ),
            "inputs-not-rounded",
            WARN,
            ReasonCode.NUMERICS_NOT_EXERCISED,
        ),
        (
            (
                "NVFP4 linear falling back to the slow and unoptimized emulation backend as no "
                "optimized backend is available (unavailable reasons:"
            ),
            "emulation-fallback",
            WARN,
            ReasonCode.NUMERICS_NOT_EXERCISED,
        ),
    ],
)
def test_a_line_of_the_log_becomes_a_finding(
    line: str, name: str, severity: Severity, reason: ReasonCode, tmp_path: Path
) -> None:
    (finding,) = observed(tmp_path, log=f"INFO all is well\n{WARNING}{line}\n").findings
    assert (finding.id, finding.severity, finding.reason) == (name, severity, reason)
    assert finding.examples == (line[:300],)
    assert finding.incident


DEFAULT_KV = (
    "Using KV cache scaling factor 1.0 for fp8_e4m3. If this is unintended, verify that k/v_scale "
    "scaling factors are properly set in the checkpoint."
)


def test_a_default_kv_scale_is_a_fault_only_where_the_files_hold_another(tmp_path: Path) -> None:
    calibrated = Demands(
        linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}), kv_fp8=True, kv_calibrated=True
    )
    cast = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}), kv_fp8=True)
    (finding,) = observed(tmp_path, log=WARNING + DEFAULT_KV, demands=calibrated).findings
    assert (finding.id, finding.severity) == ("default-kv-scale", ERROR)
    assert observed(tmp_path, log=WARNING + DEFAULT_KV, demands=cast).findings == ()
    (reported,) = observed(tmp_path, demands=calibrated, kv_scales="default").findings
    assert reported.id == "default-kv-scale"


def test_an_ordinary_log_has_no_finding(tmp_path: Path) -> None:
    log = (
        "INFO 11-23 01:00:00 [core.py:1] Initializing a V1 LLM engine, dtype=torch.bfloat16, x\n"
        "INFO 11-23 01:00:00 [__init__.py:1] Using MarlinNvFp4LinearKernel for NVFP4 GEMM\n"
        "WARNING 11-23 01:00:00 [x.py:1] Triton is installed, but doesn't include CPU backend.\n"
        "WARNING 11-23 01:00:00 [kv_cache.py:1] Checkpoint does not provide a q scaling factor. "
        "Setting it to k_scale. This only matters for FP8 Attention backends.\n"
    )
    found = observed(tmp_path, log=log)
    assert found.findings == ()
    assert found.dtype == "bfloat16"


def test_unfilled_scales_are_an_error_that_names_them(tmp_path: Path) -> None:
    name = "language_model.model.layers.0.mlp.experts.3.gate_proj.input_scale"
    (finding,) = observed(tmp_path, unfilled=[name], num_unfilled=48).findings
    assert (finding.id, finding.severity) == ("parameter-not-filled", ERROR)
    assert finding.reason == ReasonCode.SCALE_MISSING
    assert "48 of 12" in finding.message
    assert finding.examples == (name,)


def test_unfilled_weights_are_another_error(tmp_path: Path) -> None:
    unfilled = ["model.layers.0.mlp.gate.weight", "model.layers.0.a.input_scale"]
    (finding,) = observed(tmp_path, unfilled=unfilled, num_unfilled=2).findings
    assert finding.reason == ReasonCode.LOAD_MISMATCH


def test_untaken_tensors_are_an_error(tmp_path: Path) -> None:
    found = observed(tmp_path, untaken=["a.b"], num_untaken=1, num_taken=9)
    (finding,) = found.findings
    assert (finding.id, finding.reason) == ("tensor-not-taken", ReasonCode.LOAD_MISMATCH)
    assert found.loaded is not None
    assert found.loaded.num_taken == 9


def scales(**changes: object) -> dict[str, object]:
    own = {"num": 128, "num_own": 128, "num_merged": 0, "num_wrong": 0, "examples": []}
    return {"weights": own | changes}


def test_an_experts_scale_that_is_anothers_in_the_kernel_is_an_error(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.5.w2_weight_scale"
    changes = scales(num_own=8, num_wrong=120, examples=[name])
    (finding,) = observed(tmp_path, expert_scales=changes).findings
    assert (finding.id, finding.severity) == ("expert-scale-not-own", ERROR)
    assert finding.reason == ReasonCode.SCALE_MISMATCH
    assert "120 of 128" in finding.message
    assert "recipe fp8_layer_scales" in finding.message
    assert finding.examples == (name,)


def test_experts_scales_that_were_rightly_merged_are_counted(tmp_path: Path) -> None:
    found = observed(tmp_path, expert_scales=scales(num_own=100, num_merged=28))
    assert found.findings == ()
    assert found.loaded is not None
    assert (found.loaded.num_expert_scales, found.loaded.num_own_expert_scales) == (128, 100)


def test_experts_scales_of_another_shape_are_none(tmp_path: Path) -> None:
    found = observed(tmp_path, expert_scales={"weights": ["5"], "inputs": {"num_wrong": "all"}})
    assert found.findings == ()


def test_a_tensor_that_one_of_two_workers_took_is_taken(tmp_path: Path) -> None:
    second = {**fake_vllm.REPORT, "untaken": ["other"], "num_untaken": 1}
    (tmp_path / "load_report.rank1.json").write_text(json.dumps(second), encoding="utf-8")
    found = observed(tmp_path, untaken=["a.b"], num_untaken=1)
    assert found.findings == ()
    assert found.loaded is not None
    assert found.loaded.num_taken == 10


def test_a_fault_of_any_worker_counts(tmp_path: Path) -> None:
    second = {**fake_vllm.REPORT, "unfilled": ["x.weight_scale"], "num_unfilled": 1}
    (tmp_path / "load_report.rank1.json").write_text(json.dumps(second), encoding="utf-8")
    (finding,) = observed(tmp_path).findings
    assert finding.id == "parameter-not-filled"


def test_marlin_exercises_weights_alone(tmp_path: Path) -> None:
    kernels = {
        "linear": ["MarlinNvFp4LinearKernel", "UnquantizedLinearMethod"],
        "experts": ["MARLIN MarlinExperts"],
        "attention": ["FLASH_ATTN"],
        "kv_cache": ["fp8_e4m3"],
    }
    demands = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}), kv_fp8=True)
    found = observed(tmp_path, demands=demands, kernels=kernels)
    assert demands.declared == ("weights:nvfp4", "inputs:nvfp4", "kv:fp8")
    assert found.exercised == ("weights:nvfp4", "kv:fp8")


def test_kernels_of_layers_that_are_not_quantized_prove_nothing(tmp_path: Path) -> None:
    experts_only = Demands(experts=frozenset({"NVFP4"}))
    kernels = {"linear": ["UnquantizedLinearMethod"], "experts": ["MARLIN MarlinExperts"]}
    assert observed(tmp_path, demands=experts_only, kernels=kernels).exercised == ("weights:nvfp4",)


def test_the_log_names_kernels_where_a_report_does_not(tmp_path: Path) -> None:
    log = (
        "Using MarlinNvFp4LinearKernel for NVFP4 GEMM\n"
        "Using 'MARLIN' NvFp4 MoE backend out of potential backends: ['MARLIN'].\n"
        "Selected CutlassFP8ScaledMMLinearKernel for ModelOptFp8LinearMethod\n"
        "Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN'].\n"
    )
    found = observed(tmp_path, log=log, kernels={})
    assert found.kernels["experts"] == "MARLIN"
    assert found.kernels["linear"] == "MarlinNvFp4LinearKernel, CutlassFP8ScaledMMLinearKernel"
    assert found.kernels["attention"] == "FLASH_ATTN"
    assert found.exercised == ("weights:nvfp4",)


def test_a_folder_says_what_it_demands(model: Path) -> None:
    unquantized = read_demands(open_source(str(model)))
    assert unquantized == Demands(architectures=("Qwen3_5MoeForConditionalGeneration",))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    weights = {
        "num_bits": 4,
        "type": "float",
        "strategy": "tensor_group",
        "group_size": 16,
        "symmetric": True,
    }
    section: dict[str, object] = {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "config_groups": {"group_0": {"weights": weights, "targets": ["Linear"]}},
        "kv_cache_scheme": {"num_bits": 8, "type": "float"},
    }
    config["quantization_config"] = section
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weight_only = read_demands(open_source(str(model)))
    assert (weight_only.scheme, weight_only.layout) == ("W4A16_NVFP4", "compressed-tensors")
    assert weight_only.declared == ("weights:nvfp4", "kv:fp8")


def test_scales_of_keys_and_values_that_our_export_promised_are_demanded(model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    kv_cache = {"num_bits": 8, "type": "float", "dynamic": False}
    section = {"quant_algo": "NVFP4", "quant_method": "modelopt", "kv_cache_scheme": kv_cache}
    config["quantization_config"] = section | {"ignore": []}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for promised, demanded in (("fp8", True), ("fp8_cast", False)):
        (model / "harness.json").write_text(json.dumps({"kv_cache": promised}), encoding="utf-8")
        demands = read_demands(open_source(str(model)))
        assert (demands.kv_fp8, demands.kv_calibrated) == (True, demanded)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b"{}",
        b'{"device": 5, "kernels": {}}',
        b'{"device": "cpu", "kernels": 5}',
        b'{"device": "cpu", "kernels": {"linear": 5}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_report_of_another_shape_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "load_report.rank0.json").write_bytes(content)
    found = observe(NVFP4, records=tmp_path, log="")
    assert [f.id for f in found.findings] == ["load-report-missing"]


@pytest.mark.parametrize("kind", ["link", "device", "pipe"])
def test_a_report_that_is_no_file_is_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "load_report.rank0.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        (tmp_path / "other").write_text(json.dumps(fake_vllm.REPORT), encoding="utf-8")
        path.symlink_to(tmp_path / "other")
    found = observe(NVFP4, records=tmp_path, log="")
    assert [f.id for f in found.findings] == ["load-report-missing"]
