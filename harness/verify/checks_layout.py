"""Has every quantized layer all of its tensors, in the type and shape that engines load?"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from harness.artifacts import Check
from harness.engines import INDEXER
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.idle_experts import is_idle
from harness.verify.layouts import Form, Layout, forms_of
from harness.verify.modules import (
    KV_LEAVES,
    expert_of,
    experts_of,
    fused_groups,
    is_draft,
    is_quantized,
    is_quantizer_state,
    may_be_stack,
    quantized_stacks,
    weight_of,
)

_KV = frozenset(KV_LEAVES)
_EXPERT_COUNT_KEYS = {"num_experts", "num_local_experts", "n_routed_experts"}


def tensors_present(contents: Contents) -> Check:
    """Ask for every tensor of every quantized layer; experts' input scales are asked apart."""
    faults, asked = [], 0
    for name, layout in _layouts(contents):
        for role, stored in layout.tensors.items():
            if role == "input_scale" and experts_of(name):
                continue
            asked += 1
            if stored.leaf not in contents.modules[name]:
                faults.append(contents.tensor_of(name, stored.leaf))
    return finding(
        "layer-tensors-complete",
        faults,
        good=f"{asked} tensors of quantized layers are there",
        bad=f"{len(faults)} of {asked} tensors of quantized layers are missing",
    )


def tensors_well_formed(contents: Contents) -> Check:
    """Ask whether types and shapes of each quantized layer's tensors fit together."""
    faults: list[str] = []
    for name, layout in _layouts(contents):
        weight = contents.modules[name].get(layout.tensors["weight"].leaf)
        if weight is not None:
            faults += _misshapen(contents, name, layout, weight.shape)
    return finding(
        "layer-tensors-well-formed",
        faults,
        good="types and shapes of quantized layers fit their algorithm",
        bad=f"{len(faults)} tensors of quantized layers have a wrong type or shape",
    )


def _misshapen(
    contents: Contents, name: str, layout: Layout, shape: tuple[int, ...]
) -> Sequence[str]:
    """Return what is wrong with a layer whose weight has this shape, read the way it fits best."""
    forms = forms_of(shape, layout, is_stack=may_be_stack(name))
    where = contents.tensor_of(name, layout.leaf("weight"))
    readings = [tuple(_misfits(contents, name, form)) for form in forms]
    return min(readings, key=len, default=(f"{where} has the shape {list(shape)}",))


def _misfits(contents: Contents, module: str, form: Form) -> Iterator[str]:
    """Yield what is wrong with a layer's tensors if its weight is read as `form`."""
    layout = form.layout
    if form.width % layout.block:
        where = contents.tensor_of(module, layout.leaf("weight"))
        yield f"{where} is {form.width} wide, no multiple of {layout.block}"
    for stored in layout.tensors.values():
        header = contents.modules[module].get(stored.leaf)
        if header is None:
            continue
        name = contents.tensor_of(module, stored.leaf)
        if header.dtype not in stored.dtypes:
            yield f"{name} is {header.dtype} and should be {' or '.join(stored.dtypes)}"
        elif header.shape not in form.shapes(stored):
            shape = [form.out, form.width]
            yield f"{name} has the shape {list(header.shape)} beside a weight of {shape}"


def _layouts(contents: Contents) -> Iterator[tuple[str, Layout]]:
    for name, module in contents.modules.items():
        if is_quantized(module):
            layout = contents.layout_of(name)
            if layout is not None:
                yield name, layout


def quantizer_state_removed(contents: Contents) -> Check:
    """Ask for what a quantizer keeps while it works: an export that leaves it there is not done."""
    names = [name for shard in contents.shards for name in shard.entries]
    faults = sorted(filter(is_quantizer_state, names))
    return finding(
        "quantizer-state-removed",
        faults,
        good="no tensor is a quantizer's own state",
        bad=f"{len(faults)} tensors are a quantizer's own state, which no engine has a place for",
    )


def expert_input_scales_complete(contents: Contents) -> Check:
    """Ask for the input scale of every projection of every expert."""
    asked = {
        name: leaf
        for name, layout in _layouts(contents)
        if experts_of(name) and (leaf := layout.leaf("input_scale"))
    }
    faults = [
        contents.tensor_of(n, leaf) for n, leaf in asked.items() if leaf not in contents.modules[n]
    ]
    found = f"{len(asked)} of {len(asked)} expert input scales are there"
    return finding(
        "expert-input-scales-complete",
        faults,
        good=found if asked else "no expert needs an input scale",
        bad=f"{len(faults)} of {len(asked)} expert input_scale tensors are missing",
    )


def experts_complete(contents: Contents) -> Check:
    """Ask whether each layer has all of its experts, each with all projections, all alike."""
    layers: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for name in contents.modules:
        expert = expert_of(name)
        is_left = not is_quantized(contents.modules[name]) and is_idle(name, contents.config)
        if expert and not is_left:
            layers[expert.experts][expert.number][expert.projection] = name
    stacks, drafts = quantized_stacks(contents.modules), contents.drafts
    sizes = {len(experts) for path, experts in layers.items() if not is_draft(path, drafts)}
    sizes |= {size for name, size in stacks.items() if not is_draft(name, drafts)}
    wanted = _expert_count(contents.config) or max(sizes, default=0)
    faults: list[str] = []
    if not 0 <= wanted <= len(contents.tensors):  # before anything is counted up to it
        faults.append(f"config.json names {wanted} experts, for {len(contents.tensors)} tensors")
        wanted = max(sizes, default=0)
    for path, experts in layers.items():
        count = len(experts) if is_draft(path, drafts) else wanted
        faults += _expert_faults(contents, path, experts, count)
    for name, size in stacks.items():
        if size != wanted and not is_draft(name, drafts):
            faults.append(f"{name} stacks {size} experts and not {wanted}")
    total = sum(len(experts) for experts in layers.values())
    stacked = f", {len(stacks)} stacks of all experts" if stacks else ""
    return finding(
        "experts-complete",
        faults,
        good=f"{total} experts in {len(layers)} layers, each with all projections{stacked}",
        bad=f"{len(faults)} experts or projections are missing, too many or unlike their siblings",
    )


def _expert_faults(
    contents: Contents, path: str, experts: dict[int, dict[str, str]], count: int
) -> Iterator[str]:
    for number in range(count):
        if number not in experts:
            yield f"{path}.{number} is missing"
    for number in sorted(n for n in experts if n >= count):
        yield f"{path}.{number} is one too many for {count} experts"
    projections = sorted({p for expert in experts.values() for p in expert})
    for projection in projections:
        named = {n: e[projection] for n, e in experts.items() if projection in e}
        for number in sorted(experts.keys() - named.keys()):
            yield f"{path}.{number}.{projection} is missing"
        weights = [weight_of(contents.modules[name]) for _, name in sorted(named.items())]
        forms = {(w.dtype, w.shape) for w in weights if w is not None}
        if len(forms) > 1:
            yield f"{path}.*.{projection} has {len(forms)} different types or shapes"


def _expert_count(config: object) -> int | None:
    """Return the number of experts that the configuration names, if it names exactly one."""
    found = set(_expert_counts(config))
    return found.pop() if len(found) == 1 else None


def _expert_counts(config: object) -> Iterator[int]:
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key in _EXPERT_COUNT_KEYS and type(value) is int:
            yield value
        else:
            yield from _expert_counts(value)


def fused_groups_uniform(contents: Contents) -> Check:
    """Ask whether layers that engines fuse are quantized alike, or none of them."""
    # A layer whose values are its keys has no v_proj, but the scale of one.
    named = (name for name, module in contents.modules.items() if not module.keys() <= _KV)
    groups = fused_groups(named)
    faults = [
        " and ".join(group)
        for group in groups
        if len({_treatment(contents, name, group) for name in group}) > 1
    ]
    return finding(
        "fused-layers-alike",
        faults,
        good=f"{len(groups)} groups of fused layers are each quantized alike",
        bad=f"{len(faults)} of {len(groups)} groups of fused layers are quantized in part",
    )


def _treatment(contents: Contents, name: str, group: Sequence[str]) -> str | None:
    algo = contents.algo_of(name) if is_quantized(contents.modules[name]) else None
    is_regained = {part.rpartition(".")[2] for part in group} == set(INDEXER)
    return None if algo and "FP8" in algo and is_regained else algo
