"""Structure is found: every value lies where transformers' own loading puts it, of any family."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.artifacts import Slice
from harness.errors import ModelError
from harness.models import StreamedModel, TensorReader, load_model, open_source, read_inventory
from harness.models.kinds import find_kinds
from harness.models.routed import find_experts
from harness.models.slices import cut
from harness.models.structure import build_model
from scripts.families.catalogue import names
from scripts.families.make import make
from tests.tiers import slow

HARD = (
    "llama",
    "phi3",  # q, k and v in one tensor, gate and up in another
    "gpt_oss",  # transposed experts, rows of gate and up by turns, biases
    "llama4",  # transposed experts that run all at once
    "nemotron_h",  # experts without a gate, Mamba
    "deepseek_v3",  # latent attention, stored biases of routers
    "gemma4_moe",  # experts beside a dense MLP, a tied output layer
    "jamba",  # a bare matrix beside linear layers
    "qwen3_vl_moe",  # a vision tower; transposed on the Hub
    "aria_text",  # experts called fc1 and fc2
    "granitemoehybrid",  # experts called input_linear and output_linear
    "step3p7",  # a vision tower whose q, k and v are one tensor
    "minimax_m3_vl",  # two tensors make up one linear layer
    "longcat_flash",  # experts that pass their input on, with matrices that nothing multiplies with
    "kimi_k25",  # rows permuted for rotary embedding
)
REFUSED = {
    "dbrx": "'transformer.blocks.0.ffn.router' .DbrxRouter. chooses among experts that are not",
}
NOT_YET = {"ernie4_5_vl_moe", "zamba", *REFUSED}


@pytest.fixture
@slow("makes and loads two hundred families of models")
def families(tmp_path: Path) -> Callable[[str], list[Path]]:
    return lambda name: make(name, tmp_path)


def transformers_own(folder: Path) -> PreTrainedModel:
    config = json.loads((folder / "config.json").read_bytes())
    model_class = getattr(transformers, config["architectures"][0])
    loaded: PreTrainedModel = model_class.from_pretrained(folder, dtype=torch.bfloat16)
    return loaded


def check(folder: Path) -> None:
    """Hold whole and streamed loading, and each linear layer's slices, against transformers."""
    source = open_source(str(folder))
    inventory = read_inventory(source)
    wanted = transformers_own(folder).state_dict()
    ours = load_model(source, inventory, device="cpu", dtype=torch.bfloat16).state_dict()
    assert not [n for n, v in wanted.items() if not torch.equal(ours[n].to(v.dtype), v)]
    with TensorReader(source) as reader:
        for one in inventory.linears:
            place = cut(wanted[one.parameter.tensor], one.parameter)
            assert torch.equal(reader.matrix(one.source), place), one.name
    with StreamedModel(source, inventory, device="cpu", dtype=torch.bfloat16) as streamed:
        for index in streamed.order:
            with streamed.resident(index) as layer:
                for name, value in layer.module.state_dict().items():
                    assert torch.equal(value, ours[f"{layer.path}.{name}"]), name


@pytest.mark.parametrize("name", HARD)
def test_values_lie_where_transformers_puts_them(name: str, tmp_path: Path) -> None:
    for folder in make(name, tmp_path):
        if "mxfp4" not in folder.name:
            check(folder)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # transformers' own
@pytest.mark.parametrize("name", sorted(set(names()) - NOT_YET - set(HARD)))
def test_they_do_in_every_family(name: str, families: Callable[[str], list[Path]]) -> None:
    for folder in families(name):
        check(folder)


@pytest.mark.parametrize("name", REFUSED)
def test_experts_that_are_not_understood_are_refused_by_name(name: str, tmp_path: Path) -> None:
    source = open_source(str(make(name, tmp_path)[0]))
    with pytest.raises(ModelError, match=REFUSED[name]):
        read_inventory(source)


def test_no_expert_is_left_out_of_a_model_with_routers(tmp_path: Path) -> None:
    inventory = read_inventory(open_source(str(make("nemotron_h", tmp_path)[0])))
    routed = {linear.name.rpartition(".")[2] for linear in inventory.linears if linear.is_routed}
    assert routed == {"up_proj", "down_proj"}
    assert "router" in inventory.unquantizable.values()


def test_what_stays_as_it_is_is_told_by_its_kind(tmp_path: Path) -> None:
    inventory = read_inventory(open_source(str(make("gemma4_moe", tmp_path)[0])))
    assert inventory.unquantizable["lm_head"] == "output layer tied to the embedding"
    assert inventory.unquantizable["model.layers.0.router.proj"] == "router"
    names_of_linears = {linear.name for linear in inventory.linears}
    assert not names_of_linears & inventory.unquantizable.keys()


class Stacks(nn.Module):
    """Experts of which nothing but shapes is known."""

    def __init__(self, first: tuple[int, ...], last: tuple[int, ...]) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(first, device="meta"))
        self.down_proj = nn.Parameter(torch.empty(last, device="meta"))


@pytest.mark.parametrize(
    ("first", "last", "is_transposed"),
    [((4, 6, 8), (4, 8, 3), False), ((4, 8, 6), (4, 3, 8), True)],
)
def test_shapes_tell_inputs_from_outputs(
    first: tuple[int, ...], last: tuple[int, ...], *, is_transposed: bool
) -> None:
    (found,) = find_experts(Stacks(first, last), hidden_size=8)
    assert {one.is_transposed for one in found.projections} == {is_transposed}
    assert [found.size_of(one) for one in found.projections] == [(3, 8), (3, 8), (8, 3)]


@pytest.mark.parametrize("last", [(4, 8, 8), (4, 5, 3)])
def test_shapes_that_do_not_tell_are_refused(last: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="do not tell inputs from outputs"):
        list(find_experts(Stacks((4, 8, 8), last), hidden_size=8))


def test_a_router_that_could_be_either_of_two_is_refused(tiny_qwen3_moe: Path) -> None:
    source = open_source(str(tiny_qwen3_moe))
    model = build_model(source, device=torch.device("meta"), dtype=torch.bfloat16)
    block = model.get_submodule("model.layers.0.mlp")
    hidden_size = model.config.get_text_config().hidden_size
    block.add_module("other", nn.Linear(hidden_size, 8, device="meta"))
    for module in model.modules():
        if hasattr(module, "_can_record_outputs"):
            vars(module)["_can_record_outputs"] = {}  # as a class that records nothing
    with pytest.raises(ModelError, match=r"2 modules beside them have 8 outputs.*mlp\.other"):
        find_kinds(model)


def test_matrices_that_could_be_experts_are_never_left_out(tiny_qwen3_moe: Path) -> None:
    source = open_source(str(tiny_qwen3_moe))
    model = build_model(source, device=torch.device("meta"), dtype=torch.bfloat16)
    strange = nn.Module()
    strange.register_parameter("weight", nn.Parameter(torch.empty(8, 64, 64, device="meta")))
    model.get_submodule("model.layers.1.mlp").add_module("fc1", strange)
    with pytest.raises(ModelError, match=r"'model\.layers\.1\.mlp\.fc1'.*several matrices"):
        find_kinds(model)


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (Slice(tensor=""), [[0, 1, 2], [3, 4, 5]]),
        (Slice(tensor="", rows=(1, 2)), [[3, 4, 5]]),
        (Slice(tensor="", is_transposed=True), [[0, 3], [1, 4], [2, 5]]),
        (Slice(tensor="", rows=(0, 3), step=2, is_transposed=True), [[0, 3], [2, 5]]),
        (Slice(tensor="", rows=(1, 3), step=2, is_transposed=True), [[1, 4]]),
    ],
)
def test_a_slice_cuts_what_it_says(where: Slice, wanted: list[list[int]]) -> None:
    whole: Tensor = torch.arange(6).reshape(2, 3)
    assert cut(whole, where).tolist() == wanted


def test_a_class_of_linear_layers_is_tried(tmp_path: Path) -> None:
    plain = read_inventory(open_source(str(make("falcon", tmp_path)[0])))
    assert any(linear.name.endswith("query_key_value") for linear in plain.linears)
    grouped = read_inventory(open_source(str(make("deepseek_v4", tmp_path)[0])))
    kept = {what for name, what in grouped.unquantizable.items() if name.endswith("wo_a")}
    assert kept == {"linear layer that computes in its own way (DeepseekV4GroupedLinear)"}


def test_experts_of_two_modules_under_one_name_are_refused(tmp_path: Path) -> None:
    source = open_source(str(make("ernie4_5_vl_moe", tmp_path)[0]))
    with pytest.raises(ModelError, match=r"vision_moe\.experts.*run all of .* as one"):
        read_inventory(source)


def renamed(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_bytes()) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_type_of_a_makers_own_is_read_as_its_architecture_is(tmp_path: Path) -> None:
    folder = make("deepseek_v3", tmp_path)[0]
    wanted = read_inventory(open_source(str(folder))).linears
    found = read_inventory(open_source(str(renamed(folder, model_type="kimi_k2"))))
    assert found.linears == wanted


def test_an_architecture_of_a_makers_own_is_that_of_its_type(tmp_path: Path) -> None:
    folder = make("qwen3_moe", tmp_path)[0]
    wanted = read_inventory(open_source(str(folder))).linears
    changes = {"architectures": ["TheirQwen"], "auto_map": {"AutoModel": "theirs.TheirQwen"}}
    assert read_inventory(open_source(str(renamed(folder, **changes)))).linears == wanted
