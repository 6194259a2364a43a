"""Loading and reading: our model is the one that transformers loads, bit for bit."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from harness.artifacts import Linear, Slice
from harness.errors import ModelError
from harness.models import TensorReader, load_model, open_source, read_inventory, stored_dtype


def _load(folder: Path, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    source = open_source(str(folder))
    return load_model(source, read_inventory(source), device="cpu", dtype=dtype)


@pytest.fixture(
    params=["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3", "per_expert", "sharded", "tied"]
)
def folder(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, Path],
    tiny_qwen3_5_moe_per_expert: Path,
    tiny_qwen3_5_moe_sharded: Path,
    tiny_qwen3_tied: Path,
) -> Path:
    others = {
        "per_expert": tiny_qwen3_5_moe_per_expert,
        "sharded": tiny_qwen3_5_moe_sharded,
        "tied": tiny_qwen3_tied,
    }
    return (tiny_models | others)[request.param]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_model_equals_what_from_pretrained_loads(folder: Path, dtype: torch.dtype) -> None:
    ours = _load(folder, dtype)
    theirs = type(ours).from_pretrained(folder, dtype=dtype)
    expected = theirs.state_dict() | dict(theirs.named_buffers())
    actual = ours.state_dict() | dict(ours.named_buffers())
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == actual[name].dtype
        assert torch.equal(value, actual[name]), name
    ids = torch.arange(40).reshape(2, 20)
    with torch.inference_mode():
        assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert not ours.training


def test_weights_can_come_from_elsewhere(tiny_models: dict[str, Path]) -> None:
    source = open_source(str(tiny_models["mixtral"]))
    inventory = read_inventory(source)

    def matrix(linear: Linear) -> torch.Tensor:
        return torch.full(linear.shape, float(linear.expert or 0))

    model = load_model(source, inventory, device="cpu", dtype=torch.float32, matrix=matrix)
    experts = model.get_parameter("model.layers.1.mlp.experts.gate_up_proj")
    assert torch.equal(experts.amax(dim=(1, 2)), torch.arange(8.0))
    assert torch.equal(experts.amin(dim=(1, 2)), torch.arange(8.0))


def test_a_weight_that_does_not_fit_is_never_broadcast(tiny_models: dict[str, Path]) -> None:
    source = open_source(str(tiny_models["qwen3"]))
    with pytest.raises(ModelError, match=r"shape \[1, 64\], but its place in the model has"):
        load_model(
            source,
            read_inventory(source),
            device="cpu",
            dtype=torch.float32,
            matrix=lambda linear: torch.zeros(1, linear.shape[1]),
        )


def test_tied_weights_that_differ_in_the_files_are_refused(
    tiny_qwen3_tied: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_qwen3_tied, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert _load(folder).config.tie_word_embeddings
    save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1}, folder / "x")
    (folder / "x").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        _load(folder)


def test_the_ends_of_text_come_from_the_folder(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert _load(folder).generation_config.eos_token_id == [7, 9]


def test_a_slice_reads_the_rows_of_one_expert(tiny_qwen3_5_moe: Path) -> None:
    name = "model.language_model.layers.1.mlp.experts.gate_up_proj"
    whole = load_file(tiny_qwen3_5_moe / "model.safetensors")[name]
    with TensorReader(open_source(str(tiny_qwen3_5_moe))) as reader:
        part = reader.matrix(Slice(tensor=name, expert=3, rows=(32, 64)))
        assert torch.equal(part, whole[3, 32:64])
        assert torch.equal(reader.tensor(name), whole)


def test_a_tensor_that_is_not_there_is_named(tiny_qwen3: Path) -> None:
    with (
        TensorReader(open_source(str(tiny_qwen3))) as reader,
        pytest.raises(ModelError, match=r"no tensor 'model\.nothing'"),
    ):
        reader.tensor("model.nothing")


def test_a_quantized_weight_is_never_taken_for_a_plain_one(
    tiny_qwen3: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"'{name}' is stored as F8_E4M3"):
        _load(folder)


def test_a_file_that_changed_after_it_was_opened_is_refused(
    tiny_qwen3: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    source = open_source(str(folder))
    (folder / "model.safetensors").write_bytes(b"not any more")
    with TensorReader(source) as reader, pytest.raises(ModelError, match="cannot be read"):
        reader.tensor("model.norm.weight")


def test_the_stored_type_is_that_of_most_bytes(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, folder / "model.safetensors")
    assert stored_dtype(open_source(str(folder))) is torch.bfloat16


def test_a_parameter_that_no_tensor_fills_is_refused(tiny_models: dict[str, Path]) -> None:
    """Memory that nobody has written holds anything, and the model would run."""
    source = open_source(str(tiny_models["qwen3"]))
    inventory = read_inventory(source)
    others = {k: v for k, v in inventory.others.items() if k != "model.norm.weight"}
    missing = dataclasses.replace(inventory, others=others)
    with pytest.raises(
        ModelError, match=r"'model\.norm\.weight' of the model comes from no tensor"
    ):
        load_model(source, missing, device="cpu", dtype=torch.float32)
