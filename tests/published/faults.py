"""Plant one fault in a checkpoint, as faults have been met in checkpoints that people released.

Most change one tensor or one layer. Each says which finding must name it: that of the cause, for
others may fail beside it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tests.published import tensors
from tests.published.build import Built
from tests.published.declared import layout_of
from tests.published.families import EXPERTS
from tests.published.tensors import Leaves, Linear, Tensor

SCALES = ("weight_scale", "weight_scale_inv", "scale")
GLOBALS = ("weight_scale_2", "weight_global_scale")
INPUTS = ("input_scale", "input_global_scale")
STACKED = ("gate_up_proj_weight_scale", "gate_up_proj_scales")
WEIGHTS = ("weight", "weight_packed")


class Planted(NamedTuple):
    """A damaged checkpoint and what has to be found."""

    fault: str
    built: Built
    check: str
    """The finding."""
    named: str
    """What its message says by name."""


def planted(built: Built) -> Iterator[Planted]:
    """Yield every fault that a checkpoint can have."""
    for tensor_fault in _TENSOR_FAULTS:
        yield from _in_a_tensor(built, tensor_fault)
    for layer_fault in _LAYER_FAULTS:
        yield from _in_a_layer(built, layer_fault)
    yield from _exchanged_scales(built)
    yield from _lost_expert(built)
    yield from _two_files(built)


Modules = Callable[[Built], list[str]]
Edit = Callable[[Tensor], Tensor | None]


def _of_the_decoder(built: Built) -> list[str]:
    return [n for n in built.quantized if ".layers." in f".{n}" and not n.startswith("mtp.")]


def _dense(built: Built) -> list[str]:
    """Return the quantized layers of the decoder that are no routed experts."""
    return [name for name in _of_the_decoder(built) if ".experts" not in name]


def _routed(built: Built) -> list[str]:
    """Return the projections of its routed experts."""
    return [name for name in _of_the_decoder(built) if ".experts." in name]


def _rather_dense(built: Built) -> list[str]:
    return [*_dense(built), *_routed(built)]


def _rather_routed(built: Built) -> list[str]:
    return [*_routed(built), *_dense(built)]


def _stacks(built: Built) -> list[str]:
    return [name for name in built.quantized if name.endswith(".experts")]


def _attentions(built: Built) -> list[str]:
    return [name for name, leaves in built.leaves.items() if "v_scale" in leaves]


def _fused(built: Built) -> list[str]:
    """Return the layers that engines fuse with one before them, which is there."""
    before = {"up_proj": "gate_proj", "w3": "w1", "v_proj": "k_proj"}
    parts = [(name, *name.rpartition(".")[::2]) for name in _dense(built)]
    return [n for n, at, last in parts if f"{at}.{before.get(last)}" in built.quantized]


def _alone(built: Built) -> list[str]:
    """Return the layers that engines fuse with no other."""
    last = ("o_proj", "down_proj", "out_proj", "wo_b", "in_proj")
    return [name for name in _dense(built) if name.rpartition(".")[2] in last]


def _left_out(built: Built) -> list[str]:
    """Return layers that the declaration leaves out."""
    last = ("o_proj", "down_proj", "out_proj", "lm_head", "kv_b_proj")
    named = [name for name in built.leaves if name.rpartition(".")[2] in last]
    return [n for n in named if n not in built.quantized and "weight" in built.leaves[n]][:1]


def _embedding(built: Built) -> list[str]:
    last = ("embed_tokens", "embeddings", "embed")
    named = [name for name in built.leaves if name.rpartition(".")[2] in last]
    return [name for name in named if name not in built.quantized][:1]


def _router(built: Built) -> list[str]:
    return [name for name in built.routers if "weight" in built.leaves.get(name, {})][:1]


def _lost(_tensor: Tensor) -> None:
    return None


def _longer(tensor: Tensor) -> Tensor:
    shape = (*tensor.shape[:-1], (tensor.shape or (1,))[-1] + 1)
    num_bytes = int(np.prod(shape)) * tensors.BYTES[tensor.dtype]
    return Tensor(tensor.dtype, shape, (tensor.data * 4)[:num_bytes])


def _of_16_bits(tensor: Tensor) -> Tensor:
    words = np.frombuffer(tensor.data, np.uint8).astype(np.int16)
    is_byte = tensors.BYTES[tensor.dtype] == 1
    return Tensor("I16", tensor.shape, words.tobytes()) if is_byte else tensor


def _not_a_number(tensor: Tensor) -> Tensor:
    nan = {"F8_E4M3": b"\x7f", "F8_E8M0": b"\xff", "U8": b"\xff", "BF16": b"\xc0\x7f"}
    first = nan.get(tensor.dtype, b"\x00\x00\xc0\x7f")
    return tensor._replace(data=first + tensor.data[len(first) :])


def _zero(tensor: Tensor) -> Tensor:
    size = tensors.BYTES[tensor.dtype]
    has_zero = tensor.dtype not in {"U8", "F8_E8M0"}
    return tensor._replace(data=bytes(size) + tensor.data[size:]) if has_zero else tensor


def _tripled(tensor: Tensor) -> Tensor:
    return tensor._replace(data=(np.frombuffer(tensor.data, np.float32) * np.float32(3)).tobytes())


class _TensorFault(NamedTuple):
    """What is done to the last tensor that has one of some names."""

    fault: str
    modules: Modules
    leaves: tuple[str, ...]
    edit: Edit
    check: str


_COMPLETE, _FORMED = "layer-tensors-complete", "layer-tensors-well-formed"
_INPUTS, _KV = "expert-input-scales-complete", "kv-scales-consistent"
_EQUAL = "fused-scales-equal"
_TENSOR_FAULTS = (
    _TensorFault("lost scale", _rather_routed, SCALES, _lost, _COMPLETE),
    _TensorFault("lost scale of an expert", _routed, SCALES, _lost, _COMPLETE),
    _TensorFault("lost global scale", _rather_dense, GLOBALS, _lost, _COMPLETE),
    _TensorFault("lost scale of stacked experts", _stacks, STACKED, _lost, _COMPLETE),
    _TensorFault("wrong shape of stacked scales", _stacks, STACKED, _longer, _FORMED),
    _TensorFault("lost input scale of an expert", _routed, INPUTS, _lost, _INPUTS),
    _TensorFault("lost scale of values", _attentions, ("v_scale",), _lost, _KV),
    _TensorFault("wrong shape", _rather_routed, SCALES, _longer, _FORMED),
    _TensorFault("wrong type", _rather_dense, WEIGHTS, _of_16_bits, _FORMED),
    _TensorFault(
        "a scale that is no number", _rather_dense, SCALES, _not_a_number, "scales-finite"
    ),
    _TensorFault("a scale of zero", _rather_routed, SCALES, _zero, "scales-positive"),
    _TensorFault("a fused layer with two global scales", _fused, GLOBALS, _tripled, _EQUAL),
)


def _in_a_tensor(built: Built, fault: _TensorFault) -> Iterator[Planted]:
    held = built.leaves
    there = [(n, leaf) for n in fault.modules(built) for leaf in fault.leaves if leaf in held[n]]
    for module, leaf in there[-1:]:
        before = held[module][leaf]
        after = fault.edit(before)
        others = {name: tensor for name, tensor in held[module].items() if name != leaf}
        leaves = others if after is None else {**others, leaf: after}
        changed = {name: leaves if name == module else held[name] for name in held}
        if not leaves:
            del changed[module]
        if after != before:
            named = module.removesuffix(".v_proj")
            yield Planted(fault.fault, replace(built, leaves=changed), fault.check, named)


def _quantized(built: Built, module: str) -> Leaves | None:
    """Return a layer in the format of the experts or, without any, of other layers."""
    rule = layout_of(built.declared, built.config)
    layout = next((rule(name, False) for name in _rather_routed(built)), None)  # noqa: FBT003 -- a rule's two questions
    if layout is None:
        return None
    before = built.leaves[module]
    out, width = before["weight"].shape
    return {**before, **layout(Linear(out, width, 1, 2))}


def _plain(_built: Built, _module: str) -> Leaves:
    return tensors.plain(Linear(128, 256, 5, 6))


class _LayerFault(NamedTuple):
    """What the first of some layers is made."""

    fault: str
    modules: Modules
    make: Callable[[Built, str], Leaves | None]
    check: str


_ROUTERS, _EMBEDDINGS = "routers-and-vision-unquantized", "embeddings-and-norms-unquantized"
_DECLARED, _IGNORED = "quantized-layers-declared", "unquantized-layers-ignored"
_LAYER_FAULTS = (
    _LayerFault("quantized router", _router, _quantized, _ROUTERS),
    _LayerFault("quantized embedding", _embedding, _quantized, _EMBEDDINGS),
    _LayerFault("a layer quantized that is left out", _left_out, _quantized, _DECLARED),
    _LayerFault("a declared layer left in 16 bits", _alone, _plain, _IGNORED),
    _LayerFault("a fused layer in two formats", _fused, _plain, "fused-layers-alike"),
    _LayerFault("one expert in 16 bits", _routed, _plain, "experts-complete"),
)


def _in_a_layer(built: Built, fault: _LayerFault) -> Iterator[Planted]:
    for module in fault.modules(built)[:1]:
        leaves = fault.make(built, module)
        if leaves is not None:
            changed = replace(built, leaves={**built.leaves, module: leaves})
            # The finding about an expert that is unlike the others names all of them.
            named = re.sub(r"\.experts\.\d+\.", ".experts.*.", module)
            yield Planted(fault.fault, changed, fault.check, named)


def _exchanged_scales(built: Built) -> Iterator[Planted]:
    """Exchange the global scales of two experts' up projections."""
    gates = {"up_proj": "gate_proj", "w3": "w1"}
    parts = [(name, *name.rpartition(".")[::2]) for name in _routed(built)]
    ups = [n for n, at, last in parts if f"{at}.{gates.get(last)}" in built.leaves][:2]
    leaf = next((leaf for leaf in GLOBALS if ups and leaf in built.leaves[ups[0]]), None)
    if leaf is not None:
        one, other = (built.leaves[name] for name in ups)
        exchanged = {ups[0]: {**one, leaf: other[leaf]}, ups[1]: {**other, leaf: one[leaf]}}
        changed = replace(built, leaves={**built.leaves, **exchanged})
        check = "expert-gate-up-scales-equal"
        yield Planted("exchanged up scales of two experts", changed, check, ups[0])


def _lost_expert(built: Built) -> Iterator[Planted]:
    paths = [name.rpartition(".")[0] for name in _routed(built)]
    for path in [path for path in paths if path.endswith(f".{EXPERTS - 1}")][:1]:
        kept = {n: held for n, held in built.leaves.items() if not n.startswith(f"{path}.")}
        yield Planted("lost expert", replace(built, leaves=kept), "experts-complete", path)


def _two_files(built: Built) -> Iterator[Planted]:
    """Let the second file declare another format, and leave out a layer more."""
    beside = built.sidecar.get("quantization")
    if beside and built.config.get("quantization_config"):
        other = "FP8" if beside.get("quant_algo") != "FP8" else "NVFP4"
        listed = [*(beside.get("exclude_modules") or ()), "model.layers.0.mlp.down_proj"]
        for key, value, named in (
            ("quant_algo", other, other),
            ("exclude_modules", listed, "ignore list"),
        ):
            sidecar = {**built.sidecar, "quantization": {**beside, key: value}}
            changed = replace(built, sidecar=sidecar)
            yield Planted(f"two files that differ in {key}", changed, "declarations-agree", named)
