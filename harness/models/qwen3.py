"""Dense Qwen3, such as Qwen3-8B."""

from harness.models.family import Family

FAMILY = Family(
    name="qwen3",
    model_types=("qwen3",),
    fused={
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "gate_up_proj": ("gate_proj", "up_proj"),
    },
    projections={},
)
