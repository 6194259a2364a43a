"""Faults of weights: in another order, in another place, in another type, or not there.

Shapes: O output features, I input features; packed weights hold two codes a byte.
"""

import torch
from torch import Tensor

from harness.drill.fault import LLMCOMPRESSOR, MODELOPT, VLLM, Faults
from harness.drill.scales import EXPERTS
from harness.drill.tampering import Files
from harness.formats import get_format

_TEXT = "model.language_model.layers."
_TEXT_RE = r"model\.language_model\.layers\."
_PACKED = ("weight", "weight_scale", "weight_scale_2")


def _quantize_layer(files: Files, layer: str, like: str) -> None:
    """Store a plain layer as NVFP4, its input scale that of the layer `like`."""
    weight_OI = files.tensors.pop(f"{layer}.weight")
    stored = get_format("nvfp4").quantize_weight(weight_OI, amax=float(weight_OI.abs().max()))
    files.tensors |= {f"{layer}.{suffix}": tensor for suffix, tensor in stored.items()}
    files.tensors[f"{layer}.input_scale"] = files.tensors[f"{like}.input_scale"].clone()


def _without_routers(entries: list[str]) -> list[str]:
    return [e for e in entries if not (e.startswith(_TEXT) and e.endswith(".mlp.gate"))]


def _with_nan(weight_OI: Tensor) -> Tensor:
    broken_OI = weight_OI.clone()
    broken_OI[0, 0] = float("nan")
    return broken_OI


fault = Faults()


@fault(
    MODELOPT + "pull/2276",
    "the two codes in each byte of the experts' weights have changed places",
)
def _nibbles_swapped(files: Files) -> None:
    files.change(EXPERTS + "weight", lambda codes: (codes >> 4) | (codes << 4))


@fault(MODELOPT + "pull/2276", "two experts of one layer have changed places, scales and all")
def _experts_exchanged(files: Files) -> None:
    layer = f"{_TEXT}1.mlp.experts"
    for projection in ("gate_proj", "up_proj", "down_proj"):
        files.exchange(f"{layer}.0.{projection}", f"{layer}.1.{projection}")


@fault("https://github.com/ollama/ollama/issues/15902", "every expert weight of one layer is 0")
def _layer_zeroed(files: Files) -> None:
    files.change(_TEXT_RE + r"1\.mlp\.experts\.\d+\.\w+\.weight", torch.zeros_like)


@fault(MODELOPT + "pull/1323", "experts are stored in bfloat16 and declared as NVFP4")
def _experts_left_bf16(files: Files) -> None:
    nvfp4 = get_format("nvfp4")
    for name in files.matching(EXPERTS + "weight"):
        layer = name.removesuffix(".weight")
        stored = {suffix: files.tensors.pop(f"{layer}.{suffix}") for suffix in _PACKED}
        del files.tensors[f"{layer}.input_scale"]
        files.tensors[name] = nvfp4.dequantize_weight(stored, dtype=torch.bfloat16)


@fault(VLLM + "issues/57108", "one expert of one layer is not there")
def _expert_missing(files: Files) -> None:
    files.drop(_TEXT_RE + r"3\.mlp\.experts\.7\..+")


@fault(VLLM + "issues/40885", "one layer has an expert more than the model")
def _expert_too_many(files: Files) -> None:
    for name in files.matching(_TEXT_RE + r"0\.mlp\.experts\.0\..+"):
        files.tensors[name.replace(".experts.0.", ".experts.16.")] = files.tensors[name].clone()


@fault(
    MODELOPT + "pull/1858", "a rule that matches too much has quantized the routers, and says so"
)
def _routers_quantized(files: Files) -> None:
    for number in range(4):
        mlp = f"{_TEXT}{number}.mlp"
        _quantize_layer(files, f"{mlp}.gate", like=f"{mlp}.shared_expert.gate_proj")
    files.declare(ignore=_without_routers)


@fault(MODELOPT + "pull/2276", "a rule such as *mlp* has quantized the vision tower, and says so")
def _vision_quantized(files: Files) -> None:
    like = f"{_TEXT}0.mlp.shared_expert.gate_proj"
    for leaf in ("linear_fc1", "linear_fc2"):
        _quantize_layer(files, f"model.visual.blocks.0.mlp.{leaf}", like=like)
    files.declare(
        ignore=lambda entries: [
            e for e in entries if e != "model.visual*" and ".mlp.linear_" not in e
        ]
    )


@fault(
    MODELOPT + "pull/2427", "the head that predicts more tokens (MTP) is there without its experts"
)
def _draft_head_lost_in_part(files: Files) -> None:
    files.drop(r"mtp\..+\.experts\..+")


@fault(
    LLMCOMPRESSOR + "issues/2568",
    "tensors are called model.language_model.language_model",
)
def _prefix_doubled(files: Files) -> None:
    for name in files.matching(r"model\.language_model\..+"):
        files.tensors[name.replace("model.", "model.language_model.", 1)] = files.tensors.pop(name)


@fault(
    MODELOPT + "pull/2276",
    "1 was added to layer norms that a converter took for another convention",
)
def _norms_shifted(files: Files) -> None:
    files.change(_TEXT_RE + r"\d+\.(input|post_attention)_layernorm\.weight", lambda w: w + 1)


@fault(VLLM + "issues/22881", "one weight of one router is NaN")
def _router_nan(files: Files) -> None:
    files.change(_TEXT_RE + r"2\.mlp\.gate\.weight", _with_nan)


FAULTS = tuple(fault.declared)
