"""The maker of tiny models: they run, load again unchanged, and lie on disk in every layout."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from scripts.families.catalogue import find, names
from scripts.families.layouts import encode_mxfp4
from scripts.families.make import logits, make
from scripts.families.shrink import small_settings

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def load(folder: Path) -> transformers.PreTrainedModel:
    config = json.loads((folder / "config.json").read_bytes())
    model_class = getattr(transformers, config["architectures"][0])
    loaded: transformers.PreTrainedModel = model_class.from_pretrained(folder, dtype=torch.bfloat16)
    return loaded


def test_every_decoder_that_transformers_knows_is_a_family_or_is_left_out_with_a_reason() -> None:
    assert len(names()) > 180
    assert {"llama", "gpt_oss", "nemotron_h", "kimi_k2", "gemma4_moe"} <= set(names())


@pytest.mark.parametrize("name", ["mixtral", "qwen3_vl_moe"])
def test_every_layout_of_a_model_answers_alike(name: str, tmp_path: Path) -> None:
    first, *others = (logits(load(folder)) for folder in make(name, tmp_path))
    assert others
    assert all(torch.equal(one, first) for one in others)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    (folder,) = make("llama", tmp_path)
    (folder / "mark").touch()
    assert make("llama", tmp_path) == [folder]
    assert (folder / "mark").exists()


def test_a_family_is_the_same_to_the_byte_each_time(tmp_path: Path) -> None:
    one, two = (make("qwen2", tmp_path / which)[0] for which in ("one", "two"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_nothing_of_a_model_is_all_zeros(tmp_path: Path) -> None:
    (folder,) = make("gpt_oss", tmp_path)[:1]
    tensors = load_file(folder / "model.safetensors")
    assert not [name for name, one in tensors.items() if not one.any()]


def test_one_layer_of_each_kind_is_kept() -> None:
    kinds = small_settings("qwen3_next", {})["layer_types"]
    assert set(kinds) == {"linear_attention", "full_attention"}


def test_settings_of_single_types_come_last() -> None:
    assert find("gemma4_moe").corrections["enable_moe_block"] is True
    assert find("kimi_k2").model_type == "deepseek_v3"


def test_mxfp4_is_the_nearest_code_of_each_block() -> None:
    weight = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    blocks, scales = encode_mxfp4(weight)
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
    values = E2M1[codes & 7] * torch.where(codes >= 8, -1.0, 1.0)
    exact = weight.reshape(values.shape) / torch.exp2(scales.float() - 127)[..., None]
    nearest = (exact.abs()[..., None] - E2M1).abs().amin(dim=-1)
    assert torch.allclose((exact - values).abs(), nearest, atol=1e-6)
