"""Do the scales of keys and values fit what is said of the KV cache?

With `kv_cache_quant_algo` set, a checkpoint may carry a scale for the keys and one for the values
of each attention layer, or none at all: then the engine uses 1. Some and not others is a fault,
for the engine would use 1 for the rest and say nothing. So are none where harness's own manifest
says that there were scales, or where compressed-tensors' `kv_cache_scheme` is not dynamic.
"""

from harness.artifacts import Check
from harness.engines import KV, MODELOPT
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.modules import KV_LEAVES, is_draft, is_vision, tensor_of

_SCALAR = ((), (1,))
_WITH_SCALES = frozenset({"fp8", "nvfp4"})
"""KV formats, as harness writes them down, whose scales are in the files."""
_PER_HEAD = ((), (1, 1))
"""Behind the number of heads."""
_ANY_FLOAT = ("F32", "BF16", "F16")


def kv_scales_consistent(contents: Contents) -> Check:
    """Ask whether scales of keys and values are there for all attention layers or for none."""
    algo = contents.declared.kv_algorithm if contents.declared else None
    scales = {
        (_attention_of(name), leaf): tensor_of(name, leaf)
        for name, module in contents.modules.items()
        for leaf in KV_LEAVES
        if leaf in module
    }
    faults = []
    is_said = any(one.said.get(KV) for one in contents.declarations)
    if scales and algo is None and not is_said:
        faults.append(f"{next(iter(scales.values()))} exists, but no KV format is declared")
    declared = contents.declared
    must_have = declared is not None and declared.kv_is_static
    if scales or must_have or contents.exported_kv in _WITH_SCALES:
        layers = _attentions(contents) | {layer for layer, _ in scales}
        wanted = {(layer, leaf) for layer in sorted(layers) for leaf in KV_LEAVES}
        faults += [f"{layer} has no {leaf}" for layer, leaf in sorted(wanted - scales.keys())]
    tensors = contents.tensors
    dtypes = ("F32",) if declared is None or declared.layout == MODELOPT else _ANY_FLOAT
    per_head = declared is not None and declared.kv_is_per_head
    for name in scales.values():
        header = tensors[name]
        is_formed = header.shape in _SCALAR or (per_head and header.shape[1:] in _PER_HEAD)
        if header.dtype not in dtypes or not is_formed:
            faults.append(f"{name} is {header.dtype} {list(header.shape)} and no F32 scalar")
    spelled = f"KV cache {algo or 'unquantized'}"
    return finding(
        "kv-scales-consistent",
        faults,
        good=f"{spelled}, {len(scales)} scales of keys and values",
        bad=f"{spelled}, but its scales do not fit ({len(faults)} faults)",
    )


def _attention_of(module: str) -> str:
    """Return the attention layer of a module that carries a scale of keys or values."""
    return module.removesuffix(".k_proj").removesuffix(".v_proj").removesuffix(".attn")


def _attentions(contents: Contents) -> set[str]:
    """Return the decoder's attention layers, which are those that keep keys and values."""
    return {
        parent
        for name in contents.modules
        if name.endswith(".k_proj")
        and f"{(parent := name.rpartition('.')[0])}.v_proj" in contents.modules
        and not is_vision(name)
        and not is_draft(name, contents.drafts)
    }
