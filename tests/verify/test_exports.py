"""Checkpoints of the real exporter: no false alarm on good ones, and the historical fault."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness.artifacts import CalibrationStats
from harness.export import export
from harness.models import TensorReader, open_source, read_inventory
from harness.quantize import quantize
from harness.recipe import Request, load_recipe, plan
from harness.verify import verify

CASES = (
    ("qwen3_5_moe", "nvfp4", "fp8"),
    ("qwen3_5_moe", "nvfp4_experts_only", "none"),
    ("qwen3_5_moe", "nvfp4_mlp_only", "fp8_cast"),
    ("qwen3_5_moe", "w4a16_nvfp4", "none"),
    ("qwen3_5_moe", "fp8", "fp8"),
    ("qwen3_moe", "nvfp4", "none"),
    ("mixtral", "fp8", "fp8_cast"),
    ("qwen3", "nvfp4", "fp8"),
)


def exported(model: Path, qformat: str, kv_cache: str, into: Path) -> Path:
    """Export with the weights' true ranges and an invented one for every input."""
    source = open_source(str(model))
    inventory = read_inventory(source)
    request = Request(model=str(model), qformat=qformat, kv_cache=kv_cache, device="cpu")
    chosen = plan(load_recipe(request), inventory)
    with TensorReader(source) as reader:
        weight_amax = {
            linear.name: reader.matrix(linear.source).abs().max().item()
            for linear in inventory.linears
        }
    inputs = {linear.input_quantizer for linear in inventory.linears}
    inputs |= {q for a in inventory.attentions for q in (a.k_quantizer, a.v_quantizer)}
    stats = CalibrationStats(
        weight_amax=weight_amax,
        input_amax=dict.fromkeys(inputs, 2.0),
        coverage=(),
        num_samples=8,
        num_tokens=512,
    )
    export(source, chosen, quantize(source, chosen, stats), into=into)
    return into


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_good_export_passes_every_check(
    tiny_models: dict[str, Path], tmp_path: Path, case: tuple[str, str, str]
) -> None:
    family, qformat, kv_cache = case
    report = verify(exported(tiny_models[family], qformat, kv_cache, tmp_path / "checkpoint"))
    assert [check.message for check in report.checks if not check.passed] == []


def test_the_incident_is_found_on_a_real_export(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = exported(tiny_models["qwen3_5_moe"], "nvfp4", "none", tmp_path / "checkpoint")
    (shard,) = folder.glob("*.safetensors")
    tensors = load_file(shard)
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not (".experts." in name and name.endswith(".input_scale"))
    }
    save_file(kept, shard)
    failed = {check.id: check.message for check in verify(folder).errors}
    assert set(failed) == {"expert-input-scales-complete", "files-match-manifest"}
    assert "96 of 96 expert input_scale tensors" in failed["expert-input-scales-complete"]
