"""Qwen3 MoE, such as Qwen3-30B-A3B: full attention, routed experts stored one by one."""

from harness.models.family import Family

FAMILY = Family(
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    fused={
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "gate_up_proj": ("gate_proj", "up_proj"),
    },
    experts=".mlp.experts",
    projections={"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
    routers=(".mlp.gate",),
)
