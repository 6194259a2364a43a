"""Tiny tensors in the layouts that checkpoints are published in, and a file of them.

Written out by hand and apart from harness, which has a writer and a verifier of its own: a mistake
that both share would not show otherwise. Values are random but what real ones are: scales are
positive and near each other, no code is NaN, gate and up share a global scale.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

BYTES = {"F32": 4, "BF16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I32": 4, "I64": 8}


class Tensor(NamedTuple):
    """One tensor as a safetensors file holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Linear(NamedTuple):
    """A linear layer that is to be written."""

    out: int
    width: int
    seed: int
    """Of its values."""
    shared: int
    """Of the scales that it shares with the layers that engines fuse it with."""


Leaves = dict[str, Tensor]
"""A layer's tensors by the last part of their names."""


def scalar(value: float) -> Tensor:
    return Tensor("F32", (), np.float32(value).tobytes())


def bf16(shape: tuple[int, ...], seed: int) -> Tensor:
    """Values of either sign from 0.008 to 0.06."""
    drawn = np.random.default_rng(seed).integers(0x3C00, 0x3D80, shape, dtype=np.uint16)
    signs = np.random.default_rng(seed + 1).integers(0, 2, shape, dtype=np.uint16) << 15
    return Tensor("BF16", shape, (drawn | signs).tobytes())


def f32(shape: tuple[int, ...], seed: int, *, center: float = 0.0) -> Tensor:
    values = np.random.default_rng(seed).normal(center, 0.05 + center / 8, shape)
    return Tensor("F32", shape, np.abs(values).astype(np.float32).tobytes())


def _codes(dtype: str, shape: tuple[int, ...], seed: int, span: tuple[int, int]) -> Tensor:
    drawn = np.random.default_rng(seed).integers(*span, shape, dtype=np.uint8, endpoint=True)
    return Tensor(dtype, shape, drawn.tobytes())


def _bytes(shape: tuple[int, ...], seed: int) -> Tensor:
    return _codes("U8", shape, seed, (0, 255))


def _e4m3(shape: tuple[int, ...], seed: int) -> Tensor:
    drawn = np.random.default_rng(seed).integers(0, 126, shape, dtype=np.uint8, endpoint=True)
    signs = np.random.default_rng(seed + 1).integers(0, 2, shape, dtype=np.uint8) << 7
    return Tensor("F8_E4M3", shape, (drawn | signs).tobytes())


def _block_scales(shape: tuple[int, ...], seed: int) -> Tensor:
    """E4M3 scales between 16 and the largest, 448."""
    return _codes("F8_E4M3", shape, seed, (0x58, 0x7E))


def _powers(dtype: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Scales that are powers of two, stored as an exponent."""
    return _codes(dtype, shape, seed, (112, 120))


def _spread(base: float, seed: int) -> Tensor:
    return scalar(base * float(np.random.default_rng(seed).uniform(0.8, 1.2)))


def _tiles(linear: Linear, size: tuple[int, int]) -> tuple[int, int]:
    return -(-linear.out // size[0]), -(-linear.width // size[1])


def nvfp4(linear: Linear, *, inputs: bool) -> Leaves:
    leaves = {
        "weight": _bytes((linear.out, linear.width // 2), linear.seed),
        "weight_scale": _block_scales((linear.out, linear.width // 16), linear.seed + 1),
        "weight_scale_2": _spread(2e-5, linear.shared),
    }
    return leaves | ({"input_scale": _spread(0.01, linear.shared + 1)} if inputs else {})


def nvfp4_packed(linear: Linear, *, inputs: bool) -> Leaves:
    """The same as compressed-tensors stores it: the global scales are divisors."""
    leaves = {
        "weight_packed": _bytes((linear.out, linear.width // 2), linear.seed),
        "weight_scale": _block_scales((linear.out, linear.width // 16), linear.seed + 1),
        "weight_global_scale": _one(_spread(5e4, linear.shared)),
    }
    scale = _one(_spread(100.0, linear.shared + 1))
    return leaves | ({"input_global_scale": scale} if inputs else {})


def _one(tensor: Tensor) -> Tensor:
    return tensor._replace(shape=(1,))


def fp8(linear: Linear, *, inputs: bool = True) -> Leaves:
    leaves = {
        "weight": _e4m3((linear.out, linear.width), linear.seed),
        "weight_scale": _spread(3e-4, linear.shared),
    }
    return leaves | ({"input_scale": _spread(0.01, linear.shared + 1)} if inputs else {})


def fp8_rows(linear: Linear, shape: tuple[int, ...]) -> Leaves:
    return {
        "weight": _e4m3((linear.out, linear.width), linear.seed),
        "weight_scale": f32(shape, linear.seed + 2, center=3e-4),
    }


def fp8_tiles(
    linear: Linear, leaf: str, dtype: str = "F32", size: tuple[int, int] = (128, 128)
) -> Leaves:
    shape = _tiles(linear, size)
    if dtype == "F8_E8M0":
        scales = _powers(dtype, shape, linear.seed + 2)
    elif dtype == "BF16":
        scales = _rounded(f32(shape, linear.seed + 2, center=3e-4))
    else:
        scales = f32(shape, linear.seed + 2, center=3e-4)
    return {"weight": _e4m3((linear.out, linear.width), linear.seed), leaf: scales}


def _rounded(tensor: Tensor) -> Tensor:
    words = np.frombuffer(tensor.data, np.uint32) >> 16
    return Tensor("BF16", tensor.shape, words.astype(np.uint16).tobytes())


def fp8_tiles_of_modelopt(linear: Linear) -> Leaves:
    rows, columns = _tiles(linear, (128, 128))
    leaves = fp8_tiles(linear, "weight_scale")
    return leaves | {"weight_scale": leaves["weight_scale"]._replace(shape=(rows, 1, columns, 1))}


def mxfp8(linear: Linear) -> Leaves:
    return {
        "weight": _e4m3((linear.out, linear.width), linear.seed),
        "weight_scale": _powers("U8", (linear.out, linear.width // 32), linear.seed + 2),
    }


def mxfp4(linear: Linear, weight: str, dtype: str = "U8") -> Leaves:
    return {
        weight: _bytes((linear.out, linear.width // 2), linear.seed),
        "weight_scale": _powers(dtype, (linear.out, linear.width // 32), linear.seed + 2),
    }


def mxfp4_of_deepseek(linear: Linear) -> Leaves:
    packed = _bytes((linear.out, linear.width // 2), linear.seed)
    scales = _powers("F8_E8M0", (linear.out, linear.width // 32), linear.seed + 2)
    return {"weight": packed._replace(dtype="I8"), "scale": scales}


def w4a8(linear: Linear) -> Leaves:
    return {
        "weight": _bytes((linear.out, linear.width // 2), linear.seed),
        "weight_scale": _block_scales((linear.out, linear.width // 32), linear.seed + 1),
        "weight_scale_2": _spread(2e-5, linear.shared),
        "input_scale": _spread(0.01, linear.shared + 1),
    }


def awq(linear: Linear) -> Leaves:
    return {
        "weight": _bytes((linear.out // 2, linear.width), linear.seed),
        "weight_scale": f32((linear.out, linear.width // 128), linear.seed + 2, center=3e-3),
        "pre_quant_scale": bf16((linear.width,), linear.seed + 3),
    }


def integers(linear: Linear, *, bits: int, group: int) -> Leaves:
    """compressed-tensors' pack-quantized."""
    per_word = 32 // bits
    words = _bytes((linear.out, linear.width // per_word * 4), linear.seed).data
    groups = linear.width // group if group else 1
    return {
        "weight_packed": Tensor("I32", (linear.out, linear.width // per_word), words),
        "weight_scale": _rounded(f32((linear.out, groups), linear.seed + 2, center=0.01)),
        "weight_shape": Tensor("I64", (2,), np.array([linear.out, linear.width]).tobytes()),
    }


def int8(linear: Linear) -> Leaves:
    weight = _bytes((linear.out, linear.width), linear.seed)._replace(dtype="I8")
    scales = f32((linear.out, 1), linear.seed + 2, center=3e-3)
    return {"weight": weight, "weight_scale": scales}


def plain(linear: Linear) -> Leaves:
    return {"weight": bf16((linear.out, linear.width), linear.seed)}


Layout = Callable[[Linear], Leaves]


def stacked(name: str, layers: list[Leaves]) -> Mapping[str, Tensor]:
    """Return modelopt's tensors of all experts of a layer: `experts.gate_up_proj_weight_scale`.

    The weights are called like the projection; scalars are shared by all experts.
    """
    found = {}
    for leaf, first in layers[0].items():
        key = name if leaf == "weight" else f"{name}_{leaf}"
        if first.shape:
            data = b"".join(layer[leaf].data for layer in layers)
            found[key] = Tensor(first.dtype, (len(layers), *first.shape), data)
        else:
            found[key] = first
    return found


def mxfp4_stacked(_linear: Linear) -> Leaves:
    """Stand for the layout of gpt-oss, which has no tensors of one expert."""
    raise NotImplementedError


def stacked_mxfp4(name: str, experts: int, shape: tuple[int, int], seed: int) -> Leaves:
    """gpt-oss: blocks of 32 weights in 16 bytes, and an exponent a block."""
    out, width = shape
    return {
        f"{name}_blocks": _bytes((experts, out, width // 32, 16), seed),
        f"{name}_scales": _powers("U8", (experts, out, width // 32), seed + 1),
        f"{name}_bias": bf16((experts, out), seed + 2),
    }


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file."""
    header: dict[str, object] = {}
    start = 0
    for name, tensor in tensors.items():
        ends = [start, start + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": ends}
        start = ends[1]
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(tensor.data for tensor in tensors.values())
