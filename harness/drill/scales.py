"""Faults of scales: missing, broken, exchanged, or of another size.

Nearly every gibberish incident on record is one of these. They leave a checkpoint that engines
load without a word.

Shapes: O output features, B blocks of 16 input features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.drill.fault import FileFault
from harness.drill.tampering import Files

_TEXT = r"model\.language_model\.layers\."
EXPERTS = _TEXT + r"\d+\.mlp\.experts\.\d+\.(gate|up|down)_proj\."
_VLLM = "https://github.com/vllm-project/vllm/"
_MODELOPT = "https://github.com/NVIDIA/Model-Optimizer/"


def _delete_expert_input_scales(files: Files) -> None:
    files.drop(EXPERTS + "input_scale")


def _delete_in_one_layer(files: Files) -> None:
    files.drop(_TEXT + r"2\.mlp\.experts\.\d+\.\w+\.input_scale")


def _delete_of_one_expert(files: Files) -> None:
    files.drop(_TEXT + r"1\.mlp\.experts\.5\.down_proj\.input_scale")


def _fill_expert_input_scales(value: float) -> Callable[[Files], None]:
    def spoil(files: Files) -> None:
        files.change(EXPERTS + "input_scale", lambda scale: torch.full_like(scale, value))

    return spoil


def _gate_and_up_differ(files: Files) -> None:
    files.change(
        _TEXT + r"\d+\.mlp\.experts\.\d+\.gate_proj\.weight_scale_2", lambda scale: 4 * scale
    )


def _fused_layers_differ(files: Files) -> None:
    files.change(_TEXT + r"\d+\.linear_attn\.in_proj_z\.weight_scale_2", lambda scale: 4 * scale)


def _one_expert_for_all(files: Files) -> None:
    for name in files.matching(EXPERTS + "weight_scale"):
        layer, _, rest = name.partition(".mlp.experts.")
        projection = rest.partition(".")[2]
        files.tensors[name] = files.tensors[f"{layer}.mlp.experts.0.{projection}"].clone()


def _transpose_blocks(files: Files) -> None:
    files.change(EXPERTS + "weight_scale", lambda scale_OB: scale_OB.t().reshape(scale_OB.shape))


def _reverse_blocks(files: Files) -> None:
    files.change(EXPERTS + "weight_scale", _reversed_rows)


def _reversed_rows(scale_OB: Tensor) -> Tensor:
    """Reverse each row; as bytes, for torch flips no float8."""
    return scale_OB.view(torch.uint8).flip(-1).view(scale_OB.dtype)


def _nan_block(files: Files) -> None:
    files.change(_TEXT + r"0\.mlp\.experts\.3\.gate_proj\.weight_scale", _with_nan)


def _with_nan(scale_OB: Tensor) -> Tensor:
    bytes_OB = scale_OB.view(torch.uint8).clone()
    bytes_OB[0, 0] = 0x7F
    return bytes_OB.view(scale_OB.dtype)


def _zero_blocks(files: Files) -> None:
    files.change(_TEXT + r"0\.mlp\.experts\.3\.\w+\.weight_scale", torch.zeros_like)


_KV = _TEXT + r"\d+\.self_attn\.[kv]_proj\.[kv]_scale"


def _lose_kv_scales(files: Files) -> None:
    files.drop(_KV)


def _lose_value_scales(files: Files) -> None:
    files.drop(_KV.replace("[kv]", "v"))


def _shrink_kv_scales(files: Files) -> None:
    files.change(_KV, lambda scale: scale / 1000)


FAULTS = (
    FileFault(
        name="expert-input-scales-deleted",
        incident=_MODELOPT + "pull/1340",
        what="no routed expert has an input scale, as in the incident that harness exists for",
        spoil=_delete_expert_input_scales,
    ),
    FileFault(
        name="input-scales-of-a-layer-deleted",
        incident=_VLLM + "issues/45212",
        what="the routed experts of one layer have no input scale",
        spoil=_delete_in_one_layer,
    ),
    FileFault(
        name="input-scale-of-an-expert-deleted",
        incident=_VLLM + "issues/45212",
        what="one projection of one expert has no input scale",
        spoil=_delete_of_one_expert,
    ),
    FileFault(
        name="expert-input-scales-zero",
        incident=_VLLM + "issues/54189",
        what="every routed expert's input scale is 0",
        spoil=_fill_expert_input_scales(0.0),
    ),
    FileFault(
        name="expert-input-scales-nan",
        incident="https://github.com/vllm-project/llm-compressor/issues/2826",
        what="every routed expert's input scale is NaN",
        spoil=_fill_expert_input_scales(float("nan")),
    ),
    FileFault(
        name="expert-input-scales-denormal",
        incident=_VLLM + "pull/42601",
        what="every routed expert's input scale is 1e-40, whose inverse is infinite",
        spoil=_fill_expert_input_scales(1e-40),
    ),
    FileFault(
        name="expert-input-scales-tiny",
        incident=_VLLM + "pull/42601",
        what="every routed expert's input scale is 1e-6, as if nothing had been measured",
        spoil=_fill_expert_input_scales(1e-6),
    ),
    FileFault(
        name="gate-up-scales-differ",
        incident=_VLLM + "issues/54974",
        what="every expert has 4 times the global scale in gate_proj that it has in up_proj",
        spoil=_gate_and_up_differ,
    ),
    FileFault(
        name="fused-scales-differ",
        incident=_VLLM + "pull/38517",
        what="in_proj_z has 4 times the global scale of in_proj_qkv, with which engines fuse it",
        spoil=_fused_layers_differ,
    ),
    FileFault(
        name="one-expert-scale-for-all",
        incident=_MODELOPT + "pull/1340",
        what="FP8: each layer's experts all carry the weight scale of expert 0",
        spoil=_one_expert_for_all,
        format="fp8",
    ),
    FileFault(
        name="block-scales-transposed",
        incident=_VLLM + "issues/48898",
        what="the experts' block scales are stored column by column",
        spoil=_transpose_blocks,
    ),
    FileFault(
        name="block-scales-reversed",
        incident=_VLLM + "issues/48898",
        what="the experts' block scales are permuted within each row",
        spoil=_reverse_blocks,
    ),
    FileFault(
        name="block-scale-nan",
        incident=_MODELOPT + "issues/1633",
        what="one block scale of one expert is the byte 0x7F, which is NaN",
        spoil=_nan_block,
    ),
    FileFault(
        name="block-scales-zero",
        incident=_MODELOPT + "pull/1382",
        what="all block scales of one expert are 0",
        spoil=_zero_blocks,
    ),
    FileFault(
        name="kv-scales-lost",
        incident=_VLLM + "issues/54623",
        what="the calibrated scales of keys and values are gone, the declaration is not",
        spoil=_lose_kv_scales,
        format="nvfp4+kv-fp8",
    ),
    FileFault(
        name="value-scales-lost",
        incident=_VLLM + "pull/35656",
        what="keys have their scales and values have none",
        spoil=_lose_value_scales,
        format="nvfp4+kv-fp8",
    ),
    FileFault(
        name="kv-scales-too-small",
        incident="https://github.com/NVIDIA/TensorRT-LLM/pull/16916",
        what="the scales of keys and values are 1000 times too small",
        spoil=_shrink_kv_scales,
        format="nvfp4+kv-fp8",
    ),
)
