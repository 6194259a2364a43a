"""Faults of weights: in another order, in another place, in another type, or not there.

Shapes: O output features, I input features; packed weights hold two codes a byte.
"""

import torch
from torch import Tensor

from harness.drill.fault import FileFault
from harness.drill.scales import EXPERTS
from harness.drill.tampering import Files
from harness.formats import get_format

_TEXT = "model.language_model.layers."
_TEXT_RE = r"model\.language_model\.layers\."
_VLLM = "https://github.com/vllm-project/vllm/"
_MODELOPT = "https://github.com/NVIDIA/Model-Optimizer/"
_PACKED = ("weight", "weight_scale", "weight_scale_2")


def _swap_nibbles(files: Files) -> None:
    files.change(EXPERTS + "weight", lambda codes: (codes >> 4) | (codes << 4))


def _exchange_experts(files: Files) -> None:
    layer = f"{_TEXT}1.mlp.experts"
    for projection in ("gate_proj", "up_proj", "down_proj"):
        files.exchange(f"{layer}.0.{projection}", f"{layer}.1.{projection}")


def _zero_layer(files: Files) -> None:
    files.change(_TEXT_RE + r"1\.mlp\.experts\.\d+\.\w+\.weight", torch.zeros_like)


def _unquantize_experts(files: Files) -> None:
    nvfp4 = get_format("nvfp4")
    for name in files.matching(EXPERTS + "weight"):
        layer = name.removesuffix(".weight")
        stored = {suffix: files.tensors.pop(f"{layer}.{suffix}") for suffix in _PACKED}
        del files.tensors[f"{layer}.input_scale"]
        files.tensors[name] = nvfp4.dequantize_weight(stored, dtype=torch.bfloat16)


def _remove_expert(files: Files) -> None:
    files.drop(_TEXT_RE + r"3\.mlp\.experts\.7\..+")


def _add_expert(files: Files) -> None:
    for name in files.matching(_TEXT_RE + r"0\.mlp\.experts\.0\..+"):
        files.tensors[name.replace(".experts.0.", ".experts.16.")] = files.tensors[name].clone()


def _quantize_layer(files: Files, layer: str, like: str) -> None:
    """Store a plain layer as NVFP4, its input scale that of the layer `like`."""
    weight_OI = files.tensors.pop(f"{layer}.weight")
    stored = get_format("nvfp4").quantize_weight(weight_OI, amax=float(weight_OI.abs().max()))
    files.tensors |= {f"{layer}.{suffix}": tensor for suffix, tensor in stored.items()}
    files.tensors[f"{layer}.input_scale"] = files.tensors[f"{like}.input_scale"].clone()


def _quantize_routers(files: Files) -> None:
    for number in range(4):
        mlp = f"{_TEXT}{number}.mlp"
        _quantize_layer(files, f"{mlp}.gate", like=f"{mlp}.shared_expert.gate_proj")
    files.declare(ignore=_without_routers)


def _without_routers(entries: list[str]) -> list[str]:
    return [e for e in entries if not (e.startswith(_TEXT) and e.endswith(".mlp.gate"))]


def _quantize_vision(files: Files) -> None:
    like = f"{_TEXT}0.mlp.shared_expert.gate_proj"
    for leaf in ("linear_fc1", "linear_fc2"):
        _quantize_layer(files, f"model.visual.blocks.0.mlp.{leaf}", like=like)
    files.declare(
        ignore=lambda entries: [
            e for e in entries if e != "model.visual*" and ".mlp.linear_" not in e
        ]
    )


def _lose_draft_experts(files: Files) -> None:
    files.drop(r"mtp\..+\.experts\..+")


def _double_prefix(files: Files) -> None:
    for name in files.matching(r"model\.language_model\..+"):
        files.tensors[name.replace("model.", "model.language_model.", 1)] = files.tensors.pop(name)


def _shift_norms(files: Files) -> None:
    files.change(_TEXT_RE + r"\d+\.(input|post_attention)_layernorm\.weight", lambda w: w + 1)


def _break_router(files: Files) -> None:
    files.change(_TEXT_RE + r"2\.mlp\.gate\.weight", _with_nan)


def _with_nan(weight_OI: Tensor) -> Tensor:
    broken_OI = weight_OI.clone()
    broken_OI[0, 0] = float("nan")
    return broken_OI


FAULTS = (
    FileFault(
        name="nibbles-swapped",
        incident=_MODELOPT + "pull/2276",
        what="the two codes in each byte of the experts' weights have changed places",
        spoil=_swap_nibbles,
    ),
    FileFault(
        name="experts-exchanged",
        incident=_MODELOPT + "pull/2276",
        what="two experts of one layer have changed places, scales and all",
        spoil=_exchange_experts,
    ),
    FileFault(
        name="layer-zeroed",
        incident="https://github.com/ollama/ollama/issues/15902",
        what="every expert weight of one layer is 0",
        spoil=_zero_layer,
    ),
    FileFault(
        name="experts-left-bf16",
        incident=_MODELOPT + "pull/1323",
        what="experts are stored in bfloat16 and declared as NVFP4",
        spoil=_unquantize_experts,
    ),
    FileFault(
        name="expert-missing",
        incident=_VLLM + "issues/57108",
        what="one expert of one layer is not there",
        spoil=_remove_expert,
    ),
    FileFault(
        name="expert-too-many",
        incident=_VLLM + "issues/40885",
        what="one layer has an expert more than the model",
        spoil=_add_expert,
    ),
    FileFault(
        name="routers-quantized",
        incident=_MODELOPT + "pull/1858",
        what="a rule that matches too much has quantized the routers, and says so",
        spoil=_quantize_routers,
    ),
    FileFault(
        name="vision-quantized",
        incident=_MODELOPT + "pull/2276",
        what="a rule such as *mlp* has quantized the vision tower, and says so",
        spoil=_quantize_vision,
    ),
    FileFault(
        name="draft-head-lost-in-part",
        incident=_MODELOPT + "pull/2427",
        what="the head that predicts more tokens (MTP) is there without its experts",
        spoil=_lose_draft_experts,
    ),
    FileFault(
        name="prefix-doubled",
        incident="https://github.com/vllm-project/llm-compressor/issues/2568",
        what="tensors are called model.language_model.language_model",
        spoil=_double_prefix,
    ),
    FileFault(
        name="norms-shifted",
        incident=_MODELOPT + "pull/2276",
        what="1 was added to layer norms that a converter took for another convention",
        spoil=_shift_norms,
    ),
    FileFault(
        name="router-nan",
        incident=_VLLM + "issues/22881",
        what="one weight of one router is NaN",
        spoil=_break_router,
    ),
)
