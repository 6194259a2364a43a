"""A layer comes into memory as it is in the files, whatever its types and wherever it lies."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import ModelError, ReasonCode, StageError
from harness.models import (
    StreamedModel,
    decoder_layers,
    load_model,
    open_source,
    read_inventory,
)
from harness.models.pieces import LayerMap, Origins, Span
from harness.models.transfer import Transfer


@pytest.fixture
def mixed(tiny_qwen3_5_moe: Path, tmp_path: Path) -> Path:
    """A model whose norms and one projection are stored in float32, the rest in bfloat16."""
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_qwen3_5_moe, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith(("layernorm.weight", "layers.1.mlp.experts.down_proj")):
            weights[name] = weights[name].float()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def maps_of(folder: Path) -> list[LayerMap]:
    source = open_source(str(folder))
    inventory = read_inventory(source)
    model = load_model(source, inventory, device="meta", dtype=torch.bfloat16)
    origins = Origins(source, inventory)
    (path,) = (n for n, m in model.named_modules() if m is decoder_layers(model))
    return [
        origins.map_layer({f"{path}.{i}.{n}": p for n, p in layer.named_parameters()})
        for i, layer in enumerate(decoder_layers(model))
    ]


@pytest.mark.parametrize("name", ["mixed", "tiny_qwen3_5_moe_per_expert", "tiny_mixtral_sharded"])
def test_each_layer_is_that_of_the_whole_model(request: pytest.FixtureRequest, name: str) -> None:
    source = open_source(str(request.getfixturevalue(name)))
    inventory = read_inventory(source)
    whole = load_model(source, inventory, device="cpu", dtype=torch.bfloat16)
    layers = list(decoder_layers(whole))
    with StreamedModel(source, inventory, device="cpu", dtype=torch.bfloat16) as streamed:
        assert len(streamed) == len(layers)
        for index, layer in enumerate(layers):
            with streamed.resident(index) as resident:
                found = resident.module.state_dict()
                assert found.keys() == layer.state_dict().keys()
                for leaf, value in layer.state_dict().items():
                    assert torch.equal(found[leaf], value), leaf
            assert all(parameter.is_meta for parameter in resident.module.parameters())
        rest = {n: p for n, p in streamed.model.named_parameters() if not p.is_meta}
        assert rest
        assert all(torch.equal(p, whole.get_parameter(n)) for n, p in rest.items())


def test_fused_experts_are_read_in_one_piece(tiny_qwen3_5_moe: Path) -> None:
    for layer in maps_of(tiny_qwen3_5_moe):
        assert not layer.converted
        # Tensors that follow each other in the file may follow each other in memory, too.
        assert len(layer.spans) <= len(layer.views)


def test_what_has_another_type_in_the_files_is_converted(mixed: Path) -> None:
    found = [origin.tensor for layer in maps_of(mixed) for origin, _ in layer.converted]
    assert any(name.endswith("input_layernorm.weight") for name in found)
    assert [name for name in found if "down_proj" in name] == [
        "model.language_model.layers.1.mlp.experts.down_proj"
    ] * sum("layers.1.mlp.experts.down_proj" in name for name in found)
    assert any("down_proj" in name for name in found)


def test_a_parameter_that_comes_from_nowhere_is_refused(tiny_mixtral: Path) -> None:
    source = open_source(str(tiny_mixtral))
    origins = Origins(source, read_inventory(source))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    wanted = torch.empty(9, 96, 32, device="meta")
    with pytest.raises(ModelError, match=r"place in the model|of its \d+ values"):
        origins.map_layer({name: wanted})
    with pytest.raises(ModelError, match="would get 0 of its 4 values"):
        origins.map_layer({"model.layers.0.made_up": torch.empty(4, device="meta")})


def test_a_tensor_that_does_not_fit_its_place_is_refused(tiny_qwen3: Path) -> None:
    source = open_source(str(tiny_qwen3))
    origins = Origins(source, read_inventory(source))
    name = "model.layers.0.input_layernorm.weight"
    with pytest.raises(ModelError, match=r"but its place in the model has \[7\]"):
        origins.map_layer({name: torch.empty(7, device="meta", dtype=torch.bfloat16)})


def test_spans_are_read_to_where_they_belong(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content[::-1])
    block = torch.zeros(64, dtype=torch.uint8)
    spans = [Span("a", 3, 20, 8), Span("b", 0, 10, 40)]
    with Transfer(tmp_path, torch.device("cpu")) as transfer:
        transfer.read(spans, block)
    expected = bytes(8) + content[3:23] + bytes(12) + content[::-1][:10] + bytes(14)
    assert bytes(block.tolist()) == expected


def test_a_file_that_has_become_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    block = torch.zeros(64, dtype=torch.uint8)
    with (
        Transfer(tmp_path, torch.device("cpu")) as transfer,
        pytest.raises(ModelError, match=r"a' cannot be read: it ends at byte 10"),
    ):
        transfer.read([Span("a", 3, 20, 8)], block)
    with (
        Transfer(tmp_path, torch.device("cpu")) as transfer,
        pytest.raises(ModelError, match="gone' cannot be read"),
    ):
        transfer.read([Span("gone", 0, 1, 0)], block)


def test_what_does_not_fit_even_in_pieces_ends_with_one_line(
    tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object) -> None:
        torch.empty(1 << 50)

    monkeypatch.setattr(StreamedModel, "_fill_rest", too_much)
    source = open_source(str(tiny_qwen3))
    streamed = StreamedModel(source, read_inventory(source), device="cpu", dtype=torch.bfloat16)
    with pytest.raises(StageError, match=r"two decoder layers, .* do not fit") as caught, streamed:
        pass
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY
