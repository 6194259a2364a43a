"""Each hard kind of model: its weights end where they belong, and what must stay stays.

What a layer's codes mean is compared with the matrix that transformers multiplies with, which is
cut out by hand here: a slice that was taken from the wrong place is far from it.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.families.plain import decode_nvfp4, is_rounded
from tests.stored import read_tensors
from tests.typed import typed


class Quantized(Protocol):
    """As in conftest.py."""

    source: Path
    checkpoint: Path
    tensors: dict[str, Tensor]

    def layers(self) -> set[str]: ...
    def weight(self, layer: str) -> Tensor: ...
    def parameter(self, name: str) -> Tensor: ...
    def ignored(self) -> list[str]: ...


Make = Callable[[str], Quantized]
Families = Callable[[str], Path]


def routed(made: Quantized, layer: str) -> dict[str, Tensor]:
    """The decoded experts of a layer, by number and projection."""
    names = [name for name in made.layers() if name.startswith(f"{layer}.")]
    return {name.removeprefix(f"{layer}."): made.weight(name) for name in names}


def test_experts_without_a_gate_have_two_projections(quantized: Make) -> None:
    made = quantized("nemotron_h")
    experts = routed(made, "backbone.layers.1.mixer.experts")
    up = made.parameter("model.layers.1.mixer.experts.up_proj")
    down = made.parameter("model.layers.1.mixer.experts.down_proj")
    assert len(experts) == 16
    assert all(is_rounded(experts[f"{e}.up_proj"], up[e]) for e in range(8))
    assert all(is_rounded(experts[f"{e}.down_proj"], down[e]) for e in range(8))


def test_transposed_experts_with_gate_and_up_in_turn_are_taken_apart(quantized: Make) -> None:
    made = quantized("gpt_oss")
    experts = routed(made, "model.layers.1.mlp.experts")
    both = made.parameter("model.layers.1.mlp.experts.gate_up_proj")
    down = made.parameter("model.layers.1.mlp.experts.down_proj")
    assert len(experts) == 24
    for expert in range(8):
        assert is_rounded(experts[f"{expert}.gate_proj"], both[expert, :, 0::2].t())
        assert is_rounded(experts[f"{expert}.up_proj"], both[expert, :, 1::2].t())
        assert is_rounded(experts[f"{expert}.down_proj"], down[expert].t())


def test_an_original_in_mxfp4_keeps_every_value(quantized: Make) -> None:
    made = quantized("gpt_oss-mxfp4")
    experts = routed(made, "model.layers.1.mlp.experts")
    both = made.parameter("model.layers.1.mlp.experts.gate_up_proj")
    down = made.parameter("model.layers.1.mlp.experts.down_proj")
    for expert in range(8):
        assert torch.equal(experts[f"{expert}.gate_proj"], both[expert, :, 0::2].t().float())
        assert torch.equal(experts[f"{expert}.up_proj"], both[expert, :, 1::2].t().float())
        assert torch.equal(experts[f"{expert}.down_proj"], down[expert].t().float())


def test_biases_of_experts_are_kept_as_they_are(quantized: Make) -> None:
    made = quantized("gpt_oss")
    source = read_tensors(made.source)
    biases = [name for name in source if name.endswith("proj_bias")]
    assert len(biases) == 4
    assert all(torch.equal(made.tensors[name], source[name]) for name in biases)


def test_transposed_experts_are_turned(quantized: Make) -> None:
    made = quantized("llama4_text")
    experts = routed(made, "model.layers.0.feed_forward.experts")
    both = made.parameter("model.layers.0.feed_forward.experts.gate_up_proj")
    for expert in range(8):
        gate, up = both[expert].t().chunk(2)
        assert is_rounded(experts[f"{expert}.gate_proj"], gate)
        assert is_rounded(experts[f"{expert}.up_proj"], up)


@pytest.mark.parametrize("name", ["deepseek_v3", "kimi_k2", "glm4_moe_lite"])
def test_latent_attention_is_quantized_whole(quantized: Make, name: str) -> None:
    made = quantized(name)
    leaves = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
    paths = [f"model.layers.1.self_attn.{leaf}" for leaf in leaves]
    assert all(is_rounded(made.weight(p), made.parameter(f"{p}.weight")) for p in paths)
    globals_ = [made.tensors[f"{path}.weight_scale_2"] for path in (paths[0], paths[2])]
    assert torch.equal(*globals_)  # engines run both as one layer


def test_a_model_with_parts_in_float32_runs_in_bfloat16(quantized: Make) -> None:
    made = quantized("deepseek_v4")
    source = read_tensors(made.source)
    wide = [name for name, one in source.items() if one.dtype == torch.float32]
    assert wide
    assert all(torch.equal(made.tensors[name], source[name]) for name in wide)
    assert any(layer.endswith("w1") for layer in made.layers())


def test_matrices_of_experts_that_pass_their_input_on_are_copied(quantized: Make) -> None:
    made = quantized("longcat_flash")
    source = read_tensors(made.source)
    idle = [f"model.layers.0.mlp.experts.{e}.up_proj.weight" for e in range(8, 12)]
    assert all(torch.equal(made.tensors[name], source[name]) for name in idle)
    assert len(routed(made, "model.layers.0.mlp.experts")) == 24


def test_experts_beside_a_dense_mlp_are_both_quantized(quantized: Make) -> None:
    made = quantized("gemma4_moe")
    both = made.parameter("model.layers.0.experts.gate_up_proj")
    experts = routed(made, "model.layers.0.experts")
    assert len(experts) == 24
    assert is_rounded(experts["3.up_proj"], both[3].chunk(2)[1])
    dense = "model.layers.0.mlp.gate_proj"
    assert is_rounded(made.weight(dense), made.parameter(f"{dense}.weight"))


@pytest.mark.parametrize("name", ["phi3", "glm4"])
def test_what_is_fused_on_disk_stays_fused(quantized: Make, name: str) -> None:
    made = quantized(name)
    leaf = "model.layers.0.mlp.gate_up_proj"
    assert is_rounded(made.weight(leaf), made.parameter(f"{leaf}.weight"))


@pytest.mark.parametrize(
    ("name", "mixers"),
    [
        ("nemotron_h", ("layers.0.mixer.in_proj", "layers.0.mixer.out_proj")),
        ("jamba", ("layers.0.mamba.in_proj", "layers.0.mamba.out_proj")),
        ("granitemoehybrid", ("mamba.in_proj", "mamba.out_proj")),
        ("qwen3_next", ("layers.0.linear_attn.out_proj",)),
    ],
)
def test_mixers_of_hybrids_are_quantized_but_for_their_convolution(
    quantized: Make, name: str, mixers: tuple[str, ...]
) -> None:
    made = quantized(name)
    for mixer in mixers:
        assert any(layer.endswith(mixer) for layer in made.layers()), mixer
    assert not any("conv1d" in layer for layer in made.layers())
    source = read_tensors(made.source)
    kept = [n for n in source if "conv1d" in n or n.endswith(("A_log", ".D"))]
    assert kept
    assert all(torch.equal(made.tensors[name], source[name]) for name in kept)


@pytest.mark.parametrize("name", ["gemma3_text", "cohere2"])
def test_an_output_layer_that_is_the_embedding_is_no_layer_of_its_own(
    quantized: Make, name: str
) -> None:
    made = quantized(name)
    assert "lm_head.weight" not in made.tensors
    assert any(fnmatchcase("lm_head", entry) for entry in made.ignored())


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_audio", "gemma3", "mistral3"])
def test_towers_are_copied(quantized: Make, name: str) -> None:
    made = quantized(name)
    source = read_tensors(made.source)
    towers = ("visual", "vision", "audio", "projector", "embed_vision")
    inside = [n for n in source if any(word in n for word in towers)]
    assert inside
    assert all(torch.equal(made.tensors[name], source[name]) for name in inside)


@pytest.mark.parametrize(
    "name", ["mixtral-stacked", "deepseek_v3-stacked", "qwen3_vl_moe-transposed"]
)
def test_another_layout_of_the_same_model_gives_the_same_layers(quantized: Make, name: str) -> None:
    made, first = quantized(name), quantized(name.partition("-")[0])
    assert made.layers() == first.layers()
    for layer in made.layers():
        for suffix in ("weight", "weight_scale", "weight_scale_2", "input_scale"):
            assert torch.equal(
                made.tensors[f"{layer}.{suffix}"], first.tensors[f"{layer}.{suffix}"]
            )


@pytest.mark.parametrize("name", ["gpt_oss", "nemotron_h", "llama4_text", "gemma4_moe", "jamba"])
def test_layer_by_layer_is_equal_to_whole(quantized: Make, name: str, tmp_path: Path) -> None:
    made = quantized(name)
    recipe = (made.checkpoint.parent.parent / "samples.jsonl", "--calib-size", 16)
    options = ("--calib-data", *recipe, "--calib-seq", 32, "--device", "cpu", "--whole")
    typed(
        "quantize", "--model", made.source, "--qformat", "nvfp4", "--out", tmp_path / "w", *options
    )
    whole = read_tensors(tmp_path / "w" / "checkpoint")
    assert whole.keys() == made.tensors.keys()
    assert [n for n, one in whole.items() if not torch.equal(one, made.tensors[n])] == []


@pytest.mark.parametrize(
    ("name", "draft"),
    [
        ("qwen3_next", "mtp.layers.0.mlp.gate.weight"),
        ("deepseek_v3", "model.layers.61.eh_proj.weight"),
    ],
)
def test_a_draft_head_is_copied(
    families: Families, name: str, draft: str, tmp_path: Path, quantized: Make
) -> None:
    made = quantized(name)
    source = tmp_path / "source"
    source.mkdir()
    for path in families(name).iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors[draft] = torch.randn(8, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    samples = made.checkpoint.parent.parent / "samples.jsonl"
    options = ("--calib-data", samples, "--calib-size", 16, "--calib-seq", 32, "--device", "cpu")
    done = typed(
        "quantize", "--model", source, "--qformat", "nvfp4", "--out", tmp_path / "q", *options
    )
    assert done.code == 0, done.err
    written = read_tensors(tmp_path / "q" / "checkpoint")
    assert torch.equal(written[draft], tensors[draft])


def test_a_decoded_weight_is_far_from_another_slice(quantized: Make) -> None:
    made = quantized("gpt_oss")
    layer = "model.layers.1.mlp.experts.0.gate_proj"
    parts = [made.tensors[f"{layer}.{s}"] for s in ("weight", "weight_scale", "weight_scale_2")]
    both = made.parameter("model.layers.1.mlp.experts.gate_up_proj")
    assert not is_rounded(decode_nvfp4(*parts), both[0, :, 1::2].t())
    assert not is_rounded(decode_nvfp4(*parts), both[1, :, 0::2].t())
