"""Blocks of 32 and of 128, scales a row, mixed recipes: harness against nvidia-modelopt 0.47.0.

Every number is equal to the byte, but for the codes of FP8 with a scale a tensor, which the peer
rounds twice. Three things are spelled otherwise on purpose, for engines load no other spelling:
scales of FP8 blocks have their four dimensions in a weight of one block too, those of routed
experts are `weight_scale_inv`, and the peer's lower-case `fp8_pb_wo` and `mxfp4` are upper-case.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.artifacts import MIXED, QuantPlan
from tests.stored import read_tensors

DROPPED = "mtp."
"""The peer's export leaves draft heads out."""


class Pair(Protocol):
    """As in conftest.py."""

    ours: Path
    theirs: Path
    plan: QuantPlan


def spelled_as_the_peer(name: str) -> str:
    return name.replace(".weight_scale_inv", ".weight_scale")


def tensors_of(pair: Pair) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    ours = {
        spelled_as_the_peer(name): tensor
        for name, tensor in read_tensors(pair.ours).items()
        if not name.startswith(DROPPED)
    }
    return ours, read_tensors(pair.theirs)


def as_bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def declared(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    section = json.loads((folder / "config.json").read_bytes())["quantization_config"]
    sidecar = json.loads((folder / "hf_quant_config.json").read_bytes())["quantization"]
    return section, sidecar


def test_names_types_and_sizes_are_equal(wide_pair: Pair) -> None:
    ours, theirs = tensors_of(wide_pair)
    assert {n: (t.dtype, t.numel()) for n, t in ours.items()} == {
        n: (t.dtype, t.numel()) for n, t in theirs.items()
    }


def test_every_byte_is_equal_but_for_fp8_codes_with_a_scale_a_tensor(wide_pair: Pair) -> None:
    ours, theirs = tensors_of(wide_pair)
    for name, tensor in ours.items():
        scale = ours.get(f"{name}_scale")
        is_rounded_twice = tensor.dtype == torch.float8_e4m3fn and scale is not None
        is_rounded_twice = is_rounded_twice and scale is not None and scale.ndim == 0
        if is_rounded_twice:
            steps = (as_bytes(tensor).int() - as_bytes(theirs[name]).int()).abs()
            assert steps.max() <= 1, name
        else:
            assert torch.equal(as_bytes(tensor), as_bytes(theirs[name])), name


def test_the_declarations_name_the_same_algorithms(wide_pair: Pair) -> None:
    (section, sidecar), (their_section, their_sidecar) = map(
        declared, (wide_pair.ours, wide_pair.theirs)
    )
    layers = section.get("quantized_layers", {})
    algorithms = {one["quant_algo"] for one in layers.values()} or {section["quant_algo"]}
    their_layers = their_section.get("quantized_layers", {})
    theirs = {one["quant_algo"] for one in their_layers.values()}
    assert algorithms == {one.upper() for one in theirs or {their_section["quant_algo"]}}
    assert section.get("kv_cache_scheme") == their_section.get("kv_cache_scheme")
    assert sidecar["kv_cache_quant_algo"] == their_sidecar["kv_cache_quant_algo"]
    size = sidecar.get("group_size")
    assert size == their_sidecar.get("group_size", size)  # it leaves out that of mxfp4


def test_a_mixed_declaration_is_the_peers(wide_pair: Pair) -> None:
    section, sidecar = declared(wide_pair.ours)
    their_section, their_sidecar = declared(wide_pair.theirs)
    if wide_pair.plan.scheme != MIXED or "quantized_layers" not in their_section:
        return
    assert section["quantized_layers"] == their_section["quantized_layers"]
    assert section["config_groups"] == their_section["config_groups"]
    assert sidecar["quantized_layers"] == their_sidecar["quantized_layers"]
