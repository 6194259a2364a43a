"""The same kernels for checkpoints of compressed-tensors, whose methods choose by themselves."""

from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w4a4_nvfp4 as nvfp4_experts,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w8a8_fp8 as fp8_experts,
)
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
    compressed_tensors_w4a4_nvfp4 as linear,
)

from .cpu_experts_fp8 import with_cpu
from .cpu_experts_nvfp4 import without_input_scales
from .cpu_linear_nvfp4 import with_weight_only


def install() -> None:
    """Wrap what chooses their kernels."""
    method = nvfp4_experts.CompressedTensorsW4A4Nvfp4MoEMethod
    init = with_weight_only(linear.init_nvfp4_linear_kernel)
    select = with_cpu(fp8_experts.select_fp8_moe_backend)
    process = without_input_scales(method.process_weights_after_loading)
    linear.init_nvfp4_linear_kernel = init
    fp8_experts.select_fp8_moe_backend = select
    method.process_weights_after_loading = process
