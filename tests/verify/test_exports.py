"""Checkpoints of the real exporter: no false alarm on good ones, and the historical fault."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from harness.export import export
from harness.quantize import quantize
from harness.verify import verify

WIDTHS = "engine-widths"
"""The dense model has layers 48 wide, which is rightly reported."""
Export = Callable[[Path, str, str, Path], Path]

CASES = (
    ("qwen3_5_moe", "nvfp4", "fp8"),
    ("qwen3_5_moe", "nvfp4_experts_only", "none"),
    ("qwen3_5_moe", "nvfp4_mlp_only", "fp8_cast"),
    ("qwen3_5_moe", "w4a16_nvfp4", "none"),
    ("qwen3_5_moe", "fp8", "fp8"),
    ("qwen3_moe", "nvfp4", "none"),
    ("mixtral", "fp8", "fp8_cast"),
    ("qwen3", "nvfp4", "fp8"),
    ("qwen3_5_moe", "w4a16_nvfp4_fp8_attention", "fp8"),
)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_good_export_passes_every_check(
    tiny_models: dict[str, Path], export_model: Export, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    family, qformat, kv_cache = case
    source = tiny_models[family]
    folder = export_model(source, qformat, kv_cache, tmp_path / "checkpoint")
    for engine in ("vllm==0.25.0", "vllm==0.32.0", "vllm==0.33.0"):
        report = verify(folder, source=source, engine=engine)
        assert [
            check.message for check in report.checks if not check.passed and check.id != WIDTHS
        ] == []


def test_the_incident_is_found_on_a_real_export(
    tiny_models: dict[str, Path], export_model: Export, tmp_path: Path
) -> None:
    folder = export_model(tiny_models["qwen3_5_moe"], "nvfp4", "none", tmp_path / "checkpoint")
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


@pytest.mark.parametrize("hashed", ["as it was meant", "as it lies there"])
def test_a_bit_that_changed_before_the_file_was_hashed_is_found(
    tiny_models: dict[str, Path], export_model: Export, tmp_path: Path, hashed: str
) -> None:
    """A disk that changes what it is given changes what is hashed when it is read back, too."""
    folder = export_model(tiny_models["qwen3"], "nvfp4", "none", tmp_path / "checkpoint")
    (shard,) = folder.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0x10
    shard.write_bytes(content)
    manifest = json.loads((folder / "harness.json").read_bytes())
    manifest["sha256"][shard.name] = hashlib.sha256(content).hexdigest()
    if hashed == "as it lies there":
        del manifest["tensors_xxh3"]
    (folder / "harness.json").write_text(json.dumps(manifest), encoding="utf-8")
    failed = [check.id for check in verify(folder).errors]
    assert ("files-match-manifest" in failed) == (hashed == "as it was meant")


def test_bytes_behind_the_last_tensor_are_not_what_was_meant(
    tiny_models: dict[str, Path], export_model: Export, tmp_path: Path
) -> None:
    folder = export_model(tiny_models["qwen3"], "nvfp4", "none", tmp_path / "checkpoint")
    (shard,) = folder.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes() + b"more")
    assert "files-match-manifest" in [check.id for check in verify(folder).errors]


def test_experts_of_four_bits_may_share_their_range(
    planned: Callable[..., Any], tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """As gpt-oss has them: each expert's largest weight is 6 times the same power of two."""
    model = tmp_path / "model"
    shutil.copytree(tiny_models["qwen3_moe"], model)
    tensors = load_file(model / "model.safetensors")
    for name, weight in tensors.items():
        if ".experts." in name:
            weight.clamp_(-0.1, 0.1)
            weight[0, 0] = 6 * 2.0**-5
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    made = planned(model, "fp8")
    tensors_of = quantize(made.source, made.plan, made.stats)
    export(made.source, made.plan, tensors_of, into=tmp_path / "c")
    assert verify(tmp_path / "c", source=model).errors == ()
