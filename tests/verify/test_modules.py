"""What layers are, told from names and shapes alone."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from harness.artifacts import TensorHeader
from harness.engines import FUSED
from harness.verify.modules import fused_groups, group_modules, routers_of

EXPERTS, WIDTH = 8, 64


def headers(shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> dict[str, TensorHeader]:
    return {
        name: TensorHeader(shard="a", dtype=dtype, shape=shape, num_bytes=0, offset=0)
        for name, shape in shapes.items()
    }


def one_by_one(block: str) -> dict[str, tuple[int, ...]]:
    return {f"{block}.experts.{n}.up_proj.weight": (WIDTH, WIDTH) for n in range(EXPERTS)}


def stacked(block: str) -> dict[str, tuple[int, ...]]:
    return {f"{block}.experts.gate_up_proj": (EXPERTS, 2 * WIDTH, WIDTH)}


ROUTERS = {
    "Qwen, DeepSeek": ("model.layers.1.mlp", "gate"),
    "gpt-oss": ("model.layers.1.mlp", "router"),
    "Gemma 4": ("model.layers.1", "router.proj"),
    "Nemotron": ("backbone.layers.1.mixer", "gate"),
    "Llama 4": ("model.layers.1.feed_forward", "router"),
    "Mixtral, MiniMax": ("model.layers.1.block_sparse_moe", "gate"),
    "DeepSeek V4": ("layers.1.ffn", "gate"),
    "Granite": ("model.layers.1.block_sparse_moe", "router.layer"),
    "Hunyuan": ("model.layers.1.mlp", "gate.wg"),
    "a name not met yet": ("model.layers.1.moe", "dispatcher"),
}


@pytest.mark.parametrize("layout", [one_by_one, stacked])
@pytest.mark.parametrize("family", ROUTERS)
def test_a_row_for_each_expert_beside_them_is_a_router(family: str, layout: object) -> None:
    block, router = ROUTERS[family]
    shapes = {
        f"{block}.{router}.weight": (EXPERTS, WIDTH),
        f"{block}.shared_expert.up_proj.weight": (EXPERTS, WIDTH),
        f"{block}.shared_expert.down_proj.weight": (WIDTH, EXPERTS),
        f"{block}.norm.weight": (EXPERTS,),
        "model.layers.0.mlp.gate.weight": (EXPERTS, WIDTH),
        "lm_head.weight": (EXPERTS, WIDTH),
    }
    shapes |= one_by_one(block) if layout is one_by_one else stacked(block)
    assert routers_of(group_modules(headers(shapes))) == {f"{block}.{router}"}


def test_a_router_that_was_quantized_is_one_still() -> None:
    tensors = headers(one_by_one("b") | {"b.dispatcher.weight_scale": (EXPERTS, WIDTH // 16)})
    tensors |= headers({"b.dispatcher.weight": (EXPERTS, WIDTH // 2)}, "U8")
    assert routers_of(group_modules(tensors)) == {"b.dispatcher"}


def test_the_gate_of_shared_experts_is_a_router_by_name() -> None:
    tensors = headers(one_by_one("b") | {"b.shared_expert_gate.weight": (1, WIDTH)})
    assert routers_of(group_modules(tensors)) == {"b.shared_expert_gate"}


@pytest.mark.parametrize("parts", [parts for _, parts in FUSED])
def test_layers_that_engines_fuse_are_a_group(parts: tuple[str, ...]) -> None:
    names = [f"layers.0.attn.{part}" for part in (*parts, "o_proj")]
    assert fused_groups(names) == [tuple(names[:-1])]


def test_one_name_may_belong_to_either_of_two_groups() -> None:
    names = ["attn.wq_a", "attn.wkv", "attn.compressor.wkv", "attn.compressor.wgate"]
    assert fused_groups(names) == [tuple(names[:2]), tuple(names[2:])]


NOT_GROUPS = {
    "qkvb_proj": "of Bailing V3 alone; q, k and v of it are a group here",
    "in_proj_qkvg": "of OLMo hybrid alone; q, k and v of it are a group here",
    "qk_proj": "q and k are part of the group of three",
    "kv_proj": "k and v are part of the group of three",
    "merged_kv": "k and v are part of the group of three",
    "in_proj_qkvgfab": "of Kimi K3 alone; q, k and v of it are a group here",
    "fused_qkv_a_g_proj": "of Kimi K3 alone; q_a and kv_a of it are a group here",
    "conv1d": "no linear layer",
    "input_mix_weight_down_block_inject": "of Qwen 4 alone, with a part that no file holds",
    "merged_proj": "of an image encoder",
    "fc13": "of an image encoder",
    "attn.qkv": "of an image encoder",
}


def packed_of(files: Iterable[Path]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the wholes of at least two parts in vLLM's `packed_modules_mapping`."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            match node:
                case ast.Assign([ast.Name("packed_modules_mapping")], ast.Dict(keys, values)):
                    for key, value in zip(keys, values, strict=True):
                        parts = ast.literal_eval(value) if isinstance(value, ast.List) else ()
                        if isinstance(key, ast.Constant) and len(parts) > 1:
                            yield str(key.value), tuple(p.rpartition(".")[2] for p in parts)
                case _:
                    pass


def test_every_group_of_vllm_is_known(vllm_python: Path) -> None:
    vllm = next(vllm_python.parents[1].glob("lib/python3*/site-packages/vllm"))
    models = sorted([*vllm.glob("models/**/*.py"), *vllm.glob("model_executor/models/*.py")])
    known = [set(parts) for _, parts in FUSED]
    found = list(packed_of(models))
    unknown = {
        (whole, parts)
        for whole, parts in found
        if not any(set(parts) - {"index_qk_proj"} <= one for one in known)
        and whole not in NOT_GROUPS
    }
    assert len(found) > 100
    assert unknown == set()
