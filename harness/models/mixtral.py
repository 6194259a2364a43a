"""Mixtral: full attention; the files call its experts w1 (gate), w3 (up) and w2 (down).

Source: transformers, conversion_mapping.py, entry "mixtral".
"""

from harness.models.family import Family

FAMILY = Family(
    name="mixtral",
    model_types=("mixtral",),
    fused={
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "w13": ("w1", "w3"),
    },
    experts=".mlp.experts",
    projections={"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)},
    routers=(".mlp.gate",),
    renames=((".mlp.", ".block_sparse_moe."),),
)
