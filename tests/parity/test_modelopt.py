"""Checkpoints of harness against those of nvidia-modelopt 0.47.0, tensor by tensor.

NVFP4 and the scales of keys and values must be equal to the byte. FP8 scales must be equal and
codes within one, because the peer rounds twice (harness/formats/README.md).
"""

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.artifacts import QuantPlan
from harness.formats import get_format
from harness.formats.cast import cast_to_nvfp4, largest_exponent
from harness.models.unpacking import of_mxfp4 as unpack


class Pair(Protocol):
    """As in conftest.py."""

    model: Path
    ours: Path
    theirs: Path
    plan: QuantPlan


class Peer(Protocol):
    """As in conftest.py."""

    matrices: Path
    casts: Path


Both = tuple[dict[str, Tensor], dict[str, Tensor]]


def as_bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def is_fp8_code(name: str, tensor: Tensor) -> bool:
    return tensor.dtype == torch.float8_e4m3fn and name.endswith(".weight")


def test_names_types_and_shapes_are_equal(tensors_of_pair: Both) -> None:
    ours, theirs = tensors_of_pair
    assert {n: (t.dtype, t.shape) for n, t in ours.items()} == {
        n: (t.dtype, t.shape) for n, t in theirs.items()
    }


def test_every_byte_is_equal_but_for_the_last_bit_of_fp8_codes(tensors_of_pair: Both) -> None:
    ours, theirs = tensors_of_pair
    for name, tensor in ours.items():
        if is_fp8_code(name, tensor):
            steps = (as_bytes(tensor).int() - as_bytes(theirs[name]).int()).abs()
            assert steps.max() <= 1, name
        else:
            assert torch.equal(as_bytes(tensor), as_bytes(theirs[name])), name


def test_the_same_modules_are_left_unquantized(pair: Pair, tensors_of_pair: Both) -> None:
    ours, _ = tensors_of_pair
    quantized = {n.removesuffix(".weight_scale") for n in ours if n.endswith(".weight_scale")}
    plain = {n.rpartition(".")[0] for n, t in ours.items() if t.ndim > 1} - quantized
    left_out = []
    for folder in (pair.ours, pair.theirs):
        ignore = json.loads((folder / "config.json").read_bytes())["quantization_config"]["ignore"]
        left_out.append(
            {m for m in quantized | plain if any(fnmatchcase(m, entry) for entry in ignore)}
        )
    assert left_out[0] == left_out[1] == plain


def test_the_configurations_are_equal_but_for_producer_and_the_ways_to_exclude(pair: Pair) -> None:
    contents = []
    for folder in (pair.ours, pair.theirs):
        declared = json.loads((folder / "config.json").read_bytes())["quantization_config"]
        legacy = json.loads((folder / "hf_quant_config.json").read_bytes())
        assert legacy["producer"] == declared.pop("producer")
        assert legacy["quantization"].pop("exclude_modules") == declared.pop("ignore")
        contents.append((declared, legacy["quantization"]))
    assert contents[0] == contents[1]


def test_any_weight_gets_the_tensors_that_the_peer_makes_of_it(peer: Peer) -> None:
    theirs = load_file(peer.matrices.with_suffix(".peer"))
    for name, weight in load_file(peer.matrices).items():
        stored = get_format("nvfp4").quantize_weight(weight, amax=weight.abs().max().item())
        for suffix, tensor in stored.items():
            assert torch.equal(as_bytes(tensor), as_bytes(theirs[f"{name}.{suffix}"])), name


def test_a_weight_in_mxfp4_is_cast_to_what_the_peer_casts_it_to(peer: Peer) -> None:
    stored, theirs = load_file(peer.casts), load_file(peer.casts.with_suffix(".peer"))
    for name in [name.removesuffix(".scales") for name in stored if name.endswith(".scales")]:
        exponents = stored[f"{name}.scales"]
        weight = unpack(stored[f"{name}.blocks"], exponents).mT
        made = cast_to_nvfp4(weight, exponents, largest_exponent(exponents))
        for suffix, tensor in made.items():
            assert torch.equal(as_bytes(tensor), as_bytes(theirs[f"{name}.{suffix}"])), name


def source_weight(plan: QuantPlan, model: Path) -> Callable[[str], Tensor]:
    """Return a reader of source weights, fused or not, that does not use harness."""
    tensors = load_file(model / "model.safetensors")
    where = {planned.linear.name: planned.linear.source for planned in plan.quantized}

    def weight(layer: str) -> Tensor:
        part = tensors[where[layer].tensor]
        part = part if where[layer].expert is None else part[where[layer].expert]
        return part[slice(*(where[layer].rows or (None,)))].float()

    return weight


def test_what_the_peer_decodes_from_our_files_is_what_we_decode_and_near_the_source(
    decoded_by_peer: tuple[Pair, dict[str, Tensor], dict[str, Tensor]],
) -> None:
    pair, ours, theirs = decoded_by_peer
    assert set(theirs) == {planned.linear.name for planned in pair.plan.quantized}
    source = source_weight(pair.plan, pair.model)
    for layer, decoded in theirs.items():
        stored = {s: ours[f"{layer}.{s}"] for s in ("weight", "weight_scale", "weight_scale_2")}
        assert get_format("nvfp4").dequantize_weight(stored, dtype=torch.float32).equal(decoded)
        weight = source(layer)
        amax_of_block = weight.reshape(weight.shape[0], -1, 16).abs().amax(-1)
        # Codes are at most 2 steps apart and amax is 6 steps; 1.07 is the rounding of the scale.
        bound = (amax_of_block / 6 * 1.07).repeat_interleave(16, dim=1)
        assert ((decoded - weight).abs() <= bound).all(), layer


def test_compressed_tensors_unpacks_our_codes_to_the_same_values(
    decoded_by_peer: tuple[Pair, dict[str, Tensor], dict[str, Tensor]],
) -> None:
    nvfp4 = pytest.importorskip("compressed_tensors.compressors.nvfp4.helpers")
    _, ours, theirs = decoded_by_peer
    for layer, decoded in theirs.items():
        codes = nvfp4.unpack_fp4_from_uint8(
            ours[f"{layer}.weight"], *decoded.shape, dtype=torch.float32
        )
        scale = ours[f"{layer}.weight_scale"].float() * ours[f"{layer}.weight_scale_2"]
        assert torch.equal(codes * scale.repeat_interleave(16, dim=1), decoded), layer
