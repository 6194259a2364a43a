"""Plant one fault in a checkpoint, as faults have been met in checkpoints that people released.

Each fault says where it applies, what it changes and which finding must name it. The finding is
that of the cause: others may fail beside it.
"""

from collections.abc import Callable, Iterator, Mapping
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
_PAIRS = (("gate_proj", "up_proj"), ("w1", "w3"))


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
    for plant in _FAULTS:
        if (one := plant(built)) is not None:
            yield one


def _changed(built: Built, module: str, leaves: Leaves) -> Built:
    return replace(built, leaves={**built.leaves, module: leaves})


def _dense(built: Built) -> list[str]:
    """Return the quantized layers of the decoder that are no routed expert and not the head."""
    named = [n for n in built.quantized if ".experts" not in n and ".layers." in f".{n}"]
    return [name for name in named if not name.startswith("mtp.")]


def _routed(built: Built) -> list[str]:
    """Return the projections of routed experts of the decoder."""
    named = [name for name in built.quantized if ".experts." in name]
    return [name for name in named if not name.startswith("mtp.")]


def _fused(built: Built) -> list[str]:
    """Return the layers that engines fuse with one before them, which is there."""
    before = {"up_proj": "gate_proj", "w3": "w1", "v_proj": "k_proj"}
    parts = [(name, *name.rpartition(".")[::2]) for name in _dense(built)]
    return [n for n, at, last in parts if f"{at}.{before.get(last)}" in built.quantized]


def _with(built: Built, modules: list[str], leaves: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the last module that has one of the tensors, and which."""
    found = [(n, leaf) for n in modules for leaf in leaves if leaf in built.leaves[n]]
    return found[-1] if found else None


def _without(leaves: Mapping[str, Tensor], leaf: str) -> Leaves:
    return {name: tensor for name, tensor in leaves.items() if name != leaf}


def lost_scale(built: Built) -> Planted | None:
    found = _with(built, [*_routed(built), *_dense(built)], SCALES)
    if found is None:
        return None
    module, leaf = found
    changed = _changed(built, module, _without(built.leaves[module], leaf))
    return Planted("lost scale", changed, "layer-tensors-complete", f"{module}.")


def lost_scale_of_expert(built: Built) -> Planted | None:
    found = _with(built, _routed(built), SCALES)
    if found is None:
        return None
    module, leaf = found
    changed = _changed(built, module, _without(built.leaves[module], leaf))
    return Planted("lost scale of an expert", changed, "layer-tensors-complete", f"{module}.")


def lost_global_scale(built: Built) -> Planted | None:
    found = _with(built, [*_dense(built), *_routed(built)], GLOBALS)
    if found is None:
        return None
    module, leaf = found
    changed = _changed(built, module, _without(built.leaves[module], leaf))
    return Planted("lost global scale", changed, "layer-tensors-complete", f"{module}.")


def lost_input_scale(built: Built) -> Planted | None:
    found = _with(built, _routed(built), INPUTS)
    if found is None:
        return None
    module, leaf = found
    changed = _changed(built, module, _without(built.leaves[module], leaf))
    name = f"{module}.{leaf}"
    return Planted("lost input scale of an expert", changed, "expert-input-scales-complete", name)


def lost_scale_of_stack(built: Built) -> Planted | None:
    """Lose what scales all experts of a layer, whose weights are one tensor."""
    for leaf in ("gate_up_proj_weight_scale", "gate_up_proj_scales"):
        if found := _with(built, list(built.quantized), (leaf,)):
            module = found[0]
            changed = _changed(built, module, _without(built.leaves[module], leaf))
            check, name = "layer-tensors-complete", f"{module}.{leaf}"
            return Planted("lost scale of stacked experts", changed, check, name)
    return None


def wrong_shape(built: Built) -> Planted | None:
    found = _with(built, [*_routed(built), *_dense(built)], SCALES)
    if found is None:
        return None
    module, leaf = found
    scale = built.leaves[module][leaf]
    size = tensors.BYTES[scale.dtype]
    longer = Tensor(scale.dtype, (*scale.shape[:-1], (scale.shape or (1,))[-1] + 1), b"")
    data = scale.data * 2
    longer = longer._replace(data=(data * 2)[: int(np.prod(longer.shape)) * size])
    changed = _changed(built, module, {**built.leaves[module], leaf: longer})
    return Planted("wrong shape", changed, "layer-tensors-well-formed", f"{module}.{leaf}")


def wrong_type(built: Built) -> Planted | None:
    found = _with(built, [*_dense(built), *_routed(built)], ("weight", "weight_packed"))
    if found is None:
        return None
    module, leaf = found
    if tensors.BYTES[built.leaves[module][leaf].dtype] != 1:
        return None
    words = np.frombuffer(built.leaves[module][leaf].data, np.uint8).astype(np.int16)
    weight = built.leaves[module][leaf]._replace(dtype="I16", data=words.tobytes())
    changed = _changed(built, module, {**built.leaves[module], leaf: weight})
    return Planted("wrong type", changed, "layer-tensors-well-formed", f"{module}.{leaf}")


def exchanged_scales(built: Built) -> Planted | None:
    """Exchange the global scales of two experts' up projections."""
    for gate, up in _PAIRS:
        ups = [name for name in _routed(built) if name.endswith(f".{up}")]
        found = _with(
            built, [n for n in ups if f"{n.rpartition('.')[0]}.{gate}" in built.leaves], GLOBALS
        )
        if found is None:
            continue
        module, leaf = found
        other = next(name for name in ups if name.rsplit(".", 2)[0] == module.rsplit(".", 2)[0])
        mine, its = built.leaves[module], built.leaves[other]
        changed = _changed(built, module, {**mine, leaf: its[leaf]})
        changed = _changed(changed, other, {**its, leaf: mine[leaf]})
        check = "expert-gate-up-scales-equal"
        return Planted("exchanged up scales of two experts", changed, check, other)
    return None


def quantized_router(built: Built) -> Planted | None:
    like = next((name for name in [*_routed(built), *_dense(built)]), None)
    routers = [name for name in built.routers if "weight" in built.leaves.get(name, {})]
    layout = layout_of(built.declared, built.config)(like, False) if like else None  # noqa: FBT003 -- a rule's two questions
    if not routers or layout is None or like is None:
        return None
    out, width = built.leaves[routers[0]]["weight"].shape
    leaves = layout(Linear(out, width, 1, 2))
    changed = _changed(built, routers[0], {**built.leaves[routers[0]], **leaves})
    return Planted("quantized router", changed, "routers-and-vision-unquantized", routers[0])


def left_unquantized(built: Built) -> Planted | None:
    """Leave a layer in 16 bits that the declaration has as quantized: one that is not fused."""
    alone = ("o_proj", "down_proj", "out_proj", "wo_b", "in_proj")
    modules = [n for n in _dense(built) if n.rpartition(".")[2] in alone and "layers" in n]
    if not modules:
        return None
    leaves = tensors.plain(Linear(128, 256, 5, 6))
    changed = _changed(built, modules[0], leaves)
    name = modules[0]
    return Planted("a declared layer left in 16 bits", changed, "unquantized-layers-ignored", name)


def quantized_though_excluded(built: Built) -> Planted | None:
    """Quantize a layer that the declaration leaves out."""
    like = next((name for name in [*_routed(built), *_dense(built)]), None)
    layout = layout_of(built.declared, built.config)(like, False) if like else None  # noqa: FBT003 -- a rule's two questions
    alone = ("o_proj", "down_proj", "out_proj", "lm_head", "kv_b_proj")
    plain = [
        name
        for name, leaves in built.leaves.items()
        if name.rpartition(".")[2] in alone and name not in built.quantized and "weight" in leaves
    ]
    if not plain or layout is None:
        return None
    out, width = built.leaves[plain[0]]["weight"].shape
    changed = _changed(built, plain[0], layout(Linear(out, width, 1, 2)))
    return Planted(
        "a layer quantized that is left out", changed, "quantized-layers-declared", plain[0]
    )


def bad_number(built: Built) -> Planted | None:
    found = _with(built, [*_dense(built), *_routed(built)], SCALES)
    if found is None:
        return None
    module, leaf = found
    scale = built.leaves[module][leaf]
    nan = {"F8_E4M3": b"\x7f", "F8_E8M0": b"\xff", "U8": b"\xff", "BF16": b"\xc0\x7f"}
    first = nan.get(scale.dtype, b"\x00\x00\xc0\x7f")
    damaged = scale._replace(data=first + scale.data[len(first) :])
    changed = _changed(built, module, {**built.leaves[module], leaf: damaged})
    return Planted("a scale that is no number", changed, "scales-finite", f"{module}.{leaf}")


def zero_scale(built: Built) -> Planted | None:
    found = _with(built, [*_routed(built), *_dense(built)], SCALES)
    if found is None or built.leaves[found[0]][found[1]].dtype in {"U8", "F8_E8M0"}:
        return None
    module, leaf = found
    scale = built.leaves[module][leaf]
    size = tensors.BYTES[scale.dtype]
    damaged = scale._replace(data=bytes(size) + scale.data[size:])
    changed = _changed(built, module, {**built.leaves[module], leaf: damaged})
    return Planted("a scale of zero", changed, "scales-positive", f"{module}.{leaf}")


def lost_expert(built: Built) -> Planted | None:
    paths = [name.rpartition(".")[0] for name in _routed(built)]
    last = [path for path in paths if path.endswith(f".{EXPERTS - 1}")]
    if not last:
        return None
    kept = {n: held for n, held in built.leaves.items() if not n.startswith(f"{last[0]}.")}
    return Planted("lost expert", replace(built, leaves=kept), "experts-complete", last[0])


def lost_kv_scale(built: Built) -> Planted | None:
    found = [name for name, leaves in built.leaves.items() if "v_scale" in leaves]
    if not found:
        return None
    module = found[-1]
    kept = _without(built.leaves[module], "v_scale")
    leaves = {name: held for name, held in built.leaves.items() if name != module}
    changed = replace(built, leaves=leaves | ({module: kept} if kept else {}))
    where = module.removesuffix(".v_proj")
    return Planted("lost scale of values", changed, "kv-scales-consistent", where)


def quantized_embedding(built: Built) -> Planted | None:
    like = next((name for name in [*_routed(built), *_dense(built)]), None)
    layout = layout_of(built.declared, built.config)(like, False) if like else None  # noqa: FBT003 -- a rule's two questions
    name = next(
        n for n in built.leaves if n.rpartition(".")[2] in {"embed_tokens", "embeddings", "embed"}
    )
    if layout is None or name in built.quantized:
        return None
    out, width = built.leaves[name]["weight"].shape
    changed = _changed(built, name, layout(Linear(out, width, 1, 2)))
    check = "embeddings-and-norms-unquantized"
    return Planted("quantized embedding", changed, check, name)


def scale_of_its_own(built: Built) -> Planted | None:
    """Give one part of a fused layer another global scale than its siblings have."""
    found = _with(built, _fused(built), GLOBALS)
    if found is None:
        return None
    module, leaf = found
    scale = built.leaves[module][leaf]
    other = np.frombuffer(scale.data, np.float32) * np.float32(3)
    leaves = {**built.leaves[module], leaf: scale._replace(data=other.tobytes())}
    changed = _changed(built, module, leaves)
    return Planted("a fused layer with two global scales", changed, "fused-scales-equal", module)


def half_quantized(built: Built) -> Planted | None:
    """Leave one part of a fused layer in 16 bits."""
    parts = _fused(built)
    if not parts:
        return None
    changed = _changed(built, parts[0], tensors.plain(Linear(128, 128, 5, 6)))
    return Planted("a fused layer in two formats", changed, "fused-layers-alike", parts[0])


def odd_expert(built: Built) -> Planted | None:
    """Leave one expert's projection in 16 bits."""
    found = _routed(built)
    if not found:
        return None
    module = found[-1]
    changed = _changed(built, module, tensors.plain(Linear(128, 256, 5, 6)))
    projections = f"{module.rsplit('.', 2)[0]}.*.{module.rpartition('.')[2]}"
    return Planted("one expert in 16 bits", changed, "experts-complete", projections)


def lists_differ(built: Built) -> Planted | None:
    """Let one of the two files leave out a layer more."""
    beside = built.sidecar.get("quantization")
    if not beside or not built.config.get("quantization_config"):
        return None
    listed = [*(beside.get("exclude_modules") or ()), "model.layers.0.mlp.down_proj"]
    sidecar = {**built.sidecar, "quantization": {**beside, "exclude_modules": listed}}
    changed = replace(built, sidecar=sidecar)
    return Planted("two files with two lists", changed, "declarations-agree", "ignore list")


def files_differ(built: Built) -> Planted | None:
    """Let the two files declare another algorithm."""
    beside = built.sidecar.get("quantization")
    if not beside or not built.config.get("quantization_config"):
        return None
    other = "FP8" if beside.get("quant_algo") != "FP8" else "NVFP4"
    sidecar = {**built.sidecar, "quantization": {**beside, "quant_algo": other}}
    changed = replace(built, sidecar=sidecar)
    return Planted("two files that declare two formats", changed, "declarations-agree", other)


_FAULTS: tuple[Callable[[Built], Planted | None], ...] = (
    lost_scale,
    lost_scale_of_expert,
    lost_global_scale,
    lost_input_scale,
    lost_scale_of_stack,
    wrong_shape,
    wrong_type,
    exchanged_scales,
    quantized_router,
    left_unquantized,
    quantized_though_excluded,
    bad_number,
    zero_scale,
    lost_expert,
    lost_kv_scale,
    quantized_embedding,
    scale_of_its_own,
    half_quantized,
    odd_expert,
    files_differ,
    lists_differ,
)
