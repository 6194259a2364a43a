"""Faults of scales: missing, broken, exchanged, or of another size.

Nearly every gibberish incident on record is one of these. They leave a checkpoint that engines
load without a word.

Shapes: O output features, B blocks of 16 input features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.drill.fault import LLMCOMPRESSOR, MODELOPT, VLLM, Faults
from harness.drill.tampering import Files

_TEXT = r"model\.language_model\.layers\."
EXPERTS = _TEXT + r"\d+\.mlp\.experts\.\d+\.(gate|up|down)_proj\."


def _fill_expert_input_scales(value: float) -> Callable[[Files], None]:
    def spoil(files: Files) -> None:
        files.change(EXPERTS + "input_scale", lambda scale: torch.full_like(scale, value))

    return spoil


def _reversed_rows(scale_OB: Tensor) -> Tensor:
    """Reverse each row; as bytes, for torch flips no float8."""
    return scale_OB.view(torch.uint8).flip(-1).view(scale_OB.dtype)


def _with_nan(scale_OB: Tensor) -> Tensor:
    bytes_OB = scale_OB.view(torch.uint8).clone()
    bytes_OB[0, 0] = 0x7F
    return bytes_OB.view(scale_OB.dtype)


_KV = _TEXT + r"\d+\.self_attn\.[kv]_proj\.[kv]_scale"


fault = Faults()


@fault(
    MODELOPT + "pull/1340",
    "no routed expert has an input scale, as in the incident that harness exists for",
)
def _expert_input_scales_deleted(files: Files) -> None:
    files.drop(EXPERTS + "input_scale")


@fault(VLLM + "issues/45212", "the routed experts of one layer have no input scale")
def _input_scales_of_a_layer_deleted(files: Files) -> None:
    files.drop(_TEXT + r"2\.mlp\.experts\.\d+\.\w+\.input_scale")


@fault(VLLM + "issues/45212", "one projection of one expert has no input scale")
def _input_scale_of_an_expert_deleted(files: Files) -> None:
    files.drop(_TEXT + r"1\.mlp\.experts\.5\.down_proj\.input_scale")


fault(
    VLLM + "issues/54189",
    "every routed expert's input scale is 0",
    name="expert-input-scales-zero",
)(_fill_expert_input_scales(0.0))


fault(
    LLMCOMPRESSOR + "issues/2826",
    "every routed expert's input scale is NaN",
    name="expert-input-scales-nan",
)(_fill_expert_input_scales(float("nan")))


fault(
    VLLM + "pull/42601",
    "every routed expert's input scale is 1e-40, whose inverse is infinite",
    name="expert-input-scales-denormal",
)(_fill_expert_input_scales(1e-40))


fault(
    VLLM + "pull/42601",
    "every routed expert's input scale is 1e-6, as if nothing had been measured",
    name="expert-input-scales-tiny",
)(_fill_expert_input_scales(1e-6))


@fault(
    VLLM + "issues/54974",
    "every expert has 4 times the global scale in gate_proj that it has in up_proj",
)
def _gate_up_scales_differ(files: Files) -> None:
    files.change(
        _TEXT + r"\d+\.mlp\.experts\.\d+\.gate_proj\.weight_scale_2", lambda scale: 4 * scale
    )


@fault(
    VLLM + "pull/38517",
    "in_proj_z has 4 times the global scale of in_proj_qkv, with which engines fuse it",
)
def _fused_scales_differ(files: Files) -> None:
    files.change(_TEXT + r"\d+\.linear_attn\.in_proj_z\.weight_scale_2", lambda scale: 4 * scale)


@fault(
    MODELOPT + "pull/1340",
    "FP8: each layer's experts all carry the weight scale of expert 0",
    of="fp8",
)
def _one_expert_scale_for_all(files: Files) -> None:
    for name in files.matching(EXPERTS + "weight_scale"):
        layer, _, rest = name.partition(".mlp.experts.")
        projection = rest.partition(".")[2]
        files.tensors[name] = files.tensors[f"{layer}.mlp.experts.0.{projection}"].clone()


@fault(VLLM + "issues/48898", "the experts' block scales are stored column by column")
def _block_scales_transposed(files: Files) -> None:
    files.change(EXPERTS + "weight_scale", lambda scale_OB: scale_OB.t().reshape(scale_OB.shape))


@fault(VLLM + "issues/48898", "the experts' block scales are permuted within each row")
def _block_scales_reversed(files: Files) -> None:
    files.change(EXPERTS + "weight_scale", _reversed_rows)


@fault(MODELOPT + "issues/1633", "one block scale of one expert is the byte 0x7F, which is NaN")
def _block_scale_nan(files: Files) -> None:
    files.change(_TEXT + r"0\.mlp\.experts\.3\.gate_proj\.weight_scale", _with_nan)


@fault(MODELOPT + "pull/1382", "all block scales of one expert are 0")
def _block_scales_zero(files: Files) -> None:
    files.change(_TEXT + r"0\.mlp\.experts\.3\.\w+\.weight_scale", torch.zeros_like)


@fault(
    VLLM + "issues/54623",
    "the calibrated scales of keys and values are gone, the declaration is not",
    of="nvfp4+kv-fp8",
)
def _kv_scales_lost(files: Files) -> None:
    files.drop(_KV)


@fault(VLLM + "pull/35656", "keys have their scales and values have none", of="nvfp4+kv-fp8")
def _value_scales_lost(files: Files) -> None:
    files.drop(_KV.replace("[kv]", "v"))


@fault(
    "https://github.com/NVIDIA/TensorRT-LLM/pull/16916",
    "the scales of keys and values are 1000 times too small",
    of="nvfp4+kv-fp8",
)
def _kv_scales_too_small(files: Files) -> None:
    files.change(_KV, lambda scale: scale / 1000)


FAULTS = tuple(fault.declared)
