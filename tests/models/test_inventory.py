"""The inventory: every tensor of the files and every parameter of the model has its place."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.artifacts import Inventory, Linear
from harness.errors import ModelError
from harness.models import TensorReader, load_model, open_source, read_inventory
from harness.models.slices import cut

FAMILIES = ["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3"]
NUM_EXPERTS = 8


def _read(folder: Path) -> Inventory:
    return read_inventory(open_source(str(folder)))


def _named(inventory: Inventory, ending: str) -> Linear:
    return next(linear for linear in inventory.linears if linear.name.endswith(ending))


@pytest.fixture
def rewrite(
    tiny_qwen3_5_moe: Path, tmp_path: Path
) -> Callable[[dict[str, torch.Tensor | None]], Path]:
    """Copy the fused model with some tensors replaced, added or (None) left out."""

    def write(changes: dict[str, torch.Tensor | None]) -> Path:
        folder = Path(shutil.copytree(tiny_qwen3_5_moe, tmp_path / "model"))
        tensors = load_file(folder / "model.safetensors") | changes
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / "model.safetensors")
        return folder

    return write


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_the_model_is_covered_exactly_once(
    tiny_models: dict[str, Path], family: str
) -> None:
    source = open_source(str(tiny_models[family]))
    inventory = read_inventory(source)
    model = load_model(source, inventory, device="cpu", dtype=torch.float32)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    for linear in inventory.linears:
        cut(state[linear.parameter.tensor], linear.parameter).add_(1)
        assert cut(state[linear.parameter.tensor], linear.parameter).shape == linear.shape
    for parameter in inventory.others:
        state[parameter].add_(1)
    assert all((value == 1).all() for value in state.values())


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "qwen3"])
def test_names_are_those_that_save_pretrained_writes(
    tiny_models: dict[str, Path], family: str
) -> None:
    inventory = _read(tiny_models[family])
    used = {f"{linear.name}.weight" for linear in inventory.linears}
    assert used | set(inventory.others.values()) == set(inventory.tensors)


def test_fused_and_per_expert_sources_differ_only_in_where_weights_lie(
    tiny_qwen3_5_moe: Path, tiny_qwen3_5_moe_per_expert: Path, tiny_qwen3_5_moe_sharded: Path
) -> None:
    fused, single, sharded = (
        _read(p) for p in (tiny_qwen3_5_moe, tiny_qwen3_5_moe_per_expert, tiny_qwen3_5_moe_sharded)
    )
    assert fused.linears == sharded.linears
    for one, other in zip(fused.linears, single.linears, strict=True):
        assert dataclasses.replace(one, source=other.source) == other
    up = _named(fused, "experts.3.up_proj")
    assert up.source == dataclasses.replace(up.parameter, tensor=up.source.tensor)
    assert up.source.expert == 3
    assert _named(single, "experts.3.up_proj").source.tensor.endswith("experts.3.up_proj.weight")
    with (
        TensorReader(open_source(str(tiny_qwen3_5_moe))) as one_file,
        TensorReader(open_source(str(tiny_qwen3_5_moe_per_expert))) as per_expert,
        TensorReader(open_source(str(tiny_qwen3_5_moe_sharded))) as shards,
    ):
        for a, b in zip(fused.linears, single.linears, strict=True):
            weight = per_expert.matrix(b.source)
            assert torch.equal(one_file.matrix(a.source), weight)
            assert torch.equal(shards.matrix(a.source), weight)


def test_quantizers_are_named_after_the_running_model(tiny_models: dict[str, Path]) -> None:
    mixtral = _read(tiny_models["mixtral"])
    up, down = _named(mixtral, "experts.5.w3"), _named(mixtral, "experts.5.w2")
    assert up.name == "model.layers.0.block_sparse_moe.experts.5.w3"
    experts = "model.layers.0.mlp.experts"
    assert up.weight_quantizer == f"{experts}.gate_up_proj_weight_quantizers.5"
    assert up.input_quantizer == f"{experts}.gate_up_proj_input_quantizer"
    assert down.weight_quantizer == f"{experts}.down_proj_weight_quantizers.5"
    assert (up.experts, up.expert, up.is_routed) == (experts, 5, True)
    q = _named(mixtral, "q_proj")
    assert q.weight_quantizer == "model.layers.0.self_attn.q_proj.weight_quantizer"
    assert not q.is_routed


def _groups(inventory: Inventory) -> set[tuple[str, ...]]:
    """Return the members of every group of two and more, by last name."""
    members: dict[str, list[str]] = {}
    for linear in inventory.linears:
        members.setdefault(linear.group, []).append(linear.name.rpartition(".")[2])
    return {tuple(sorted(names)) for names in members.values() if len(names) > 1}


def test_layers_that_engines_fuse_share_a_group(tiny_models: dict[str, Path]) -> None:
    qkv, gate_up = ("k_proj", "q_proj", "v_proj"), ("gate_proj", "up_proj")
    assert _groups(_read(tiny_models["qwen3"])) == {qkv, gate_up}
    assert _groups(_read(tiny_models["qwen3_moe"])) == {qkv, gate_up}
    assert _groups(_read(tiny_models["mixtral"])) == {qkv, ("w1", "w3")}
    assert _groups(_read(tiny_models["qwen3_5_moe"])) == {
        qkv,
        gate_up,
        ("in_proj_qkv", "in_proj_z"),
    }


def test_no_group_spans_two_experts_or_layers(tiny_models: dict[str, Path]) -> None:
    for folder in tiny_models.values():
        sizes = Counter(linear.group for linear in _read(folder).linears)
        assert max(sizes.values()) <= 3


def test_only_full_attention_keeps_keys_and_values(tiny_models: dict[str, Path]) -> None:
    names = [a.name for a in _read(tiny_models["qwen3_5_moe"]).attentions]
    assert names == ["model.language_model.layers.3.self_attn"]
    assert len(_read(tiny_models["mixtral"]).attentions) == 2


def test_what_no_rule_may_reach_is_listed(tiny_models: dict[str, Path]) -> None:
    listed = set(_read(tiny_models["qwen3_5_moe"]).unquantizable)
    prefix = "model.language_model"
    assert {
        "model.visual.patch_embed.proj",
        "model.visual.pos_embed",
        f"{prefix}.embed_tokens",
        f"{prefix}.layers.0.linear_attn.conv1d",
        f"{prefix}.layers.3.mlp.gate",
        "mtp.fc",
        "mtp.layers.0.mlp.experts",
        "mtp.layers.0.mlp.gate",
        "mtp.layers.0.self_attn.q_proj",
    } <= listed
    assert listed.isdisjoint(x.name for x in _read(tiny_models["qwen3_5_moe"]).linears)
    mixtral = _read(tiny_models["mixtral"]).unquantizable
    assert "model.layers.0.block_sparse_moe.gate" in mixtral


def test_a_tied_output_layer_is_no_linear_layer(tiny_qwen3_tied: Path) -> None:
    inventory = _read(tiny_qwen3_tied)
    assert "lm_head" not in {linear.name for linear in inventory.linears}
    assert "lm_head" in inventory.unquantizable
    assert inventory.others["lm_head.weight"] == "model.embed_tokens.weight"


def test_a_packed_checkpoint_has_the_same_inventory(
    rewrite: Callable[[dict[str, torch.Tensor | None]], Path], tiny_qwen3_5_moe: Path
) -> None:
    """As an export writes it: experts apart, codes in half the columns, scales beside them."""
    plain = _read(tiny_qwen3_5_moe)
    changes: dict[str, torch.Tensor | None] = {}
    for linear in plain.linears:
        if linear.experts is not None:
            changes[linear.source.tensor] = None
            changes[f"{linear.name}.weight"] = torch.zeros(
                linear.shape[0], linear.shape[1] // 2, dtype=torch.uint8
            )
            for scale in ("weight_scale_2", "input_scale"):
                changes[f"{linear.name}.{scale}"] = torch.ones(())
            block_scales = torch.ones(linear.shape[0], linear.shape[1] // 16)
            changes[f"{linear.name}.weight_scale"] = block_scales.to(torch.float8_e4m3fn)
    changes[f"{plain.attentions[0].name}.k_proj.k_scale"] = torch.ones(())
    changes[f"{plain.attentions[0].name}.v_proj.v_scale"] = torch.ones(())
    packed = _read(rewrite(changes))
    for one, other in zip(plain.linears, packed.linears, strict=True):
        assert dataclasses.replace(one, source=other.source) == other
    assert packed.unquantizable == plain.unquantizable


def test_a_parameter_without_a_tensor_is_refused(
    rewrite: Callable[[dict[str, torch.Tensor | None]], Path],
) -> None:
    name = "model.language_model.layers.2.mlp.experts.down_proj"
    with pytest.raises(ModelError, match=r"lacks 8 tensor.*experts\.0\.down_proj"):
        _read(rewrite({name: None}))


def test_a_missing_norm_is_refused(
    rewrite: Callable[[dict[str, torch.Tensor | None]], Path],
) -> None:
    with pytest.raises(ModelError, match=r"lacks 1 tensor.*'model\.language_model\.norm\.weight'"):
        _read(rewrite({"model.language_model.norm.weight": None}))


def test_a_tensor_of_another_shape_is_refused(
    rewrite: Callable[[dict[str, torch.Tensor | None]], Path],
) -> None:
    with pytest.raises(ModelError, match=r"shape \[7\], but config\.json asks for \[64\]"):
        _read(rewrite({"model.language_model.norm.weight": torch.zeros(7)}))


def test_a_tensor_that_has_no_place_is_refused(
    rewrite: Callable[[dict[str, torch.Tensor | None]], Path],
) -> None:
    with pytest.raises(ModelError, match=r"no place for, such as 'model\.extra\.weight'"):
        _read(rewrite({"model.extra.weight": torch.zeros(2, 2)}))


def _with_config(folder: Path, tmp_path: Path, **changes: object) -> Path:
    copy = Path(shutil.copytree(folder, tmp_path / "other"))
    config = json.loads((copy / "config.json").read_bytes()) | changes
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


@pytest.mark.parametrize("architectures", [None, [], ["NoSuchModel"], "Qwen3ForCausalLM", [3]])
def test_an_architecture_that_transformers_lacks_is_refused(
    tiny_qwen3: Path, tmp_path: Path, architectures: object
) -> None:
    folder = _with_config(tiny_qwen3, tmp_path, architectures=architectures)
    with pytest.raises(ModelError, match="names the architecture"):
        _read(folder)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"layer_types": ["magic"]}]
)
def test_a_config_that_describes_nothing_is_refused(
    tiny_qwen3: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        _read(_with_config(tiny_qwen3, tmp_path, **changes))


def test_a_config_with_fewer_layers_than_the_files_is_refused(
    tiny_qwen3: Path, tmp_path: Path
) -> None:
    folder = _with_config(tiny_qwen3, tmp_path, num_hidden_layers=1, layer_types=None)
    with pytest.raises(ModelError, match="no place for"):
        _read(folder)


def test_a_model_that_another_tool_quantized_is_refused(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = _with_config(tiny_qwen3, tmp_path, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError, match="quantized already, by 'fp8'"):
        _read(folder)
