"""The other ways in which the same model lies on disk.

`save_pretrained` writes most experts one by one. Many models are published with all experts of a
layer in one tensor, as the running model has them, and gpt-oss with these in MXFP4.
"""

import itertools
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

_WEIGHTS = "model.safetensors"
_BLOCK = 32
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LEFT_OUT = (
    "model.layers.*.self_attn",
    "model.layers.*.mlp.router",
    "model.embed_tokens",
    "lm_head",
)


def write_stacked(model: PreTrainedModel, saved: Path, folder: Path) -> bool:
    """Write a checkpoint with experts in one tensor a layer, if it differs from the saved one.

    Returns:
        Whether there is such a layout: experts, as many in each tensor, and other names than in
        `saved`.
    """
    tensors = _unshared(model)
    with safe_open(saved / _WEIGHTS, framework="pt") as file:
        are_same = set(file.keys()) == set(tensors)
    stacks = [t for name, t in tensors.items() if t.ndim == 3 and "expert" in name]  # noqa: PLR2004 -- experts, rows, columns
    if are_same or len({len(stack) for stack in stacks}) != 1:
        return False
    shutil.copytree(saved, folder)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    return True


def _unshared(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the running model's tensors, each storage once."""
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, one in model.state_dict().items():
        if one.data_ptr() not in seen:
            kept[name] = one.contiguous()
        seen.add(one.data_ptr())
    return kept


def write_transposed(saved: Path, folder: Path) -> None:
    """Write a checkpoint whose experts have inputs before outputs, as Qwen3-VL-MoE is published."""
    shutil.copytree(saved, folder)
    tensors: dict[str, Tensor] = {}
    with safe_open(saved / _WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 -- no mapping
            weight = file.get_tensor(name)
            is_experts = name.endswith(("experts.gate_up_proj", "experts.down_proj"))
            tensors[name] = weight.transpose(1, 2).contiguous() if is_experts else weight
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def write_mxfp4(saved: Path, folder: Path) -> None:
    """Write a gpt-oss checkpoint as published: experts as blocks of E2M1 codes with E8M0 scales."""
    shutil.copytree(saved, folder)
    tensors: dict[str, Tensor] = {}
    with safe_open(saved / _WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 -- no mapping
            weight = file.get_tensor(name)
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                blocks, scales = encode_mxfp4(weight.transpose(1, 2))
                tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            else:
                tensors[name] = weight
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [*_LEFT_OUT],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def encode_mxfp4(weight_EOI: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes (E, O, I / 32, 16), the even column in the low half of a byte, and exponents.

    Source: OCP Microscaling Formats 1.0, section 6.3: the exponent is floor(log2(amax)) - 2.
    """
    blocks = weight_EOI.float().reshape(*weight_EOI.shape[:2], -1, _BLOCK)
    amax = blocks.abs().amax(dim=-1)
    exponent = torch.where(amax > 0, torch.floor(torch.log2(amax)) - 2, 0.0)
    scaled = blocks / torch.exp2(exponent)[..., None]
    bounds = torch.tensor([(a + b) / 2 for a, b in itertools.pairwise(_E2M1)])
    codes = torch.bucketize(scaled.abs().contiguous(), bounds) + 8 * (scaled < 0)
    codes = codes.to(torch.uint8)
    packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return packed, (exponent + 127).to(torch.uint8)
