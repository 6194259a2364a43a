"""Qwen3.5 and Qwen3.6 MoE: vision tower, linear and full attention, routed and shared experts.

The Hub stores the routed experts fused (3-D); transformers 5 saves them one by one. The tensors
of the multi-token prediction (MTP) head are no part of the running model and are kept as they are.
"""

from harness.models.family import Family

FAMILY = Family(
    name="qwen3_5_moe",
    model_types=("qwen3_5_moe",),
    fused={
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
        "in_proj_ba": ("in_proj_b", "in_proj_a"),
        "gate_up_proj": ("gate_proj", "up_proj"),
    },
    experts=".mlp.experts",
    projections={"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
    routers=(".mlp.gate",),
    passthrough=r"mtp\..*",
)
