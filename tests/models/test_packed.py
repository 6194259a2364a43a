"""Models published in 4 or 8 bits are read as the numbers that they stand for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import ModelError
from harness.models import (
    TensorReader,
    load_model,
    open_source,
    read_inventory,
    stored_weights,
)
from harness.models.slices import cut
from scripts.families.make import make


def pack_fp8(folder: Path, into: Path, block: tuple[int, int] = (128, 128)) -> Path:
    """Write a model's linear layers in FP8 with a scale a block, as DeepSeek publishes its own."""
    shutil.copytree(folder, into)
    tensors: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        rows, columns = (-(-n // b) for n, b in zip(weight.shape, block, strict=True))
        padded = torch.zeros(rows * block[0], columns * block[1])
        padded[: weight.shape[0], : weight.shape[1]] = weight.float()
        blocks = padded.view(rows, block[0], columns, block[1])
        scales = blocks.abs().amax(dim=(1, 3)) / 448
        codes = (blocks / scales[:, None, :, None]).view(padded.shape)
        codes = codes[: weight.shape[0], : weight.shape[1]].contiguous()
        tensors |= {name: codes.to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((into / "config.json").read_bytes())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    (into / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return into


@pytest.fixture
def fp8(tiny_qwen3_moe: Path, tmp_path: Path) -> Path:
    return pack_fp8(tiny_qwen3_moe, tmp_path / "fp8", block=(48, 32))


def test_mxfp4_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: PLC0415

    folder = make("gpt_oss", tmp_path)[-1]
    stored = load_file(folder / "model.safetensors")
    source = open_source(str(folder))
    assert len(source.packed) == 4
    with TensorReader(source) as reader:
        for name in source.packed:
            blocks, scales = stored[f"{name}_blocks"], stored[f"{name}_scales"]
            assert torch.equal(reader.tensor(name), convert_moe_packed_tensors(blocks, scales))
    # A format of 4.5 bits promises nothing of what has 4.25 already.
    assert stored_weights(source).bits_per_weight == pytest.approx(4.25)


def test_one_expert_of_mxfp4_is_that_of_all(tmp_path: Path) -> None:
    source = open_source(str(make("gpt_oss", tmp_path)[-1]))
    inventory = read_inventory(source)
    with TensorReader(source) as reader:
        for linear in [one for one in inventory.linears if one.is_routed][:9]:
            whole = reader.tensor(linear.source.tensor)
            assert torch.equal(reader.matrix(linear.source), cut(whole, linear.source))


def test_fp8_is_each_code_times_the_scale_of_its_block(fp8: Path) -> None:
    stored = load_file(fp8 / "model.safetensors")
    source = open_source(str(fp8))
    name = "model.layers.0.self_attn.o_proj.weight"
    with TensorReader(source) as reader:
        found = reader.tensor(name)
    row, column = found.shape[0] - 1, found.shape[1] - 1
    scale = stored[f"{name}_scale_inv"][row // 48, column // 32]
    assert found[row, column] == (stored[name][row, column].float() * scale).bfloat16()


def test_a_model_in_fp8_is_near_the_one_that_it_was_made_from(
    fp8: Path, tiny_qwen3_moe: Path
) -> None:
    ids = torch.arange(20)[None]
    logits = []
    for folder in (fp8, tiny_qwen3_moe):
        source = open_source(str(folder))
        model = load_model(source, read_inventory(source), device="cpu", dtype=torch.float32)
        with torch.no_grad():
            logits.append(model(input_ids=ids).logits.flatten())
    assert torch.corrcoef(torch.stack(logits))[0, 1] > 0.99


def test_codes_without_their_scales_are_refused(fp8: Path) -> None:
    tensors = load_file(fp8 / "model.safetensors")
    name = "model.layers.0.self_attn.o_proj.weight_scale_inv"
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, fp8 / "model.safetensors")
    source = open_source(str(fp8))
    inventory = read_inventory(source)
    with pytest.raises(ModelError, match=r"o_proj\.weight' is stored as F8_E4M3"):
        load_model(source, inventory, device="cpu", dtype=torch.float32)
