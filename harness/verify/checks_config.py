"""Is the quantization declared, in a way that engines know, and once?"""

from harness.artifacts import Check, Severity
from harness.verify.contents import Contents
from harness.verify.declared import Declaration, matches
from harness.verify.finding import finding
from harness.verify.layouts import LAYOUTS
from harness.verify.modules import (
    engine_names,
    is_plain_linear,
    is_quantized,
    is_router,
    is_vision,
    stacked_experts,
)

_KV_ALGOS = {None, "FP8", "NVFP4"}


def quantization_declared(contents: Contents) -> Check:
    """Ask whether an engine will know that, and how, the checkpoint is quantized."""
    declared = contents.declared
    faults = ["config.json has no quantization_config"] if declared is None else _unknown(declared)
    algo = declared.algo if declared else None
    return finding(
        "quantization-declared",
        faults,
        good=f"quant_algo is {algo}",
        bad="an engine would not know how the checkpoint is quantized",
    )


def _unknown(declared: Declaration) -> list[str]:
    faults = []
    known = {*LAYOUTS, "MIXED_PRECISION"}
    if declared.method not in {None, "modelopt"}:
        faults.append(f"quant_method is '{declared.method}' and not modelopt")
    if declared.algo is None:
        faults.append(f"quant_algo is null in {declared.source}")
    elif declared.algo not in known:
        faults.append(f"quant_algo '{declared.algo}' is none of {', '.join(sorted(known))}")
    if declared.algo == "MIXED_PRECISION":
        odd = {algo for algo in declared.layers.values() if algo not in LAYOUTS}
        faults += [f"quantized_layers has the unknown quant_algo '{algo}'" for algo in sorted(odd)]
        if not declared.layers:
            faults.append("quantized_layers is empty")
    if declared.kv_algo not in _KV_ALGOS:
        faults.append(f"kv_cache_quant_algo '{declared.kv_algo}' is unknown")
    return faults


def declarations_agree(contents: Contents) -> Check:
    """Ask whether config.json and hf_quant_config.json say the same."""
    faults = []
    if len(contents.declarations) > 1:
        first, second = contents.declarations
        pairs = (
            ("quant_algo", first.algo, second.algo),
            ("the KV cache's algorithm", first.kv_algo, second.kv_algo),
            ("group_size", first.group_size, second.group_size),
            ("the ignore list", sorted(first.ignore), sorted(second.ignore)),
            ("quantized_layers", dict(first.layers), dict(second.layers)),
        )
        faults = [
            f"{what} is {_short(left)} in {first.source} and {_short(right)} in {second.source}"
            for what, left, right in pairs
            if left != right
        ]
    return finding(
        "declarations-agree",
        faults,
        good="the declarations agree" if len(contents.declarations) > 1 else "one declaration",
        bad="config.json and hf_quant_config.json contradict each other",
    )


def _short(value: object) -> str:
    return f"{len(value)} entries" if isinstance(value, list | dict) else f"'{value}'"


def something_quantized(contents: Contents) -> Check:
    """Ask whether any layer is quantized at all."""
    count = sum(is_quantized(module) for module in contents.modules.values())
    return finding(
        "quantized-layers-exist",
        [] if count else ["no tensor is packed and none is a scale"],
        good=f"{count} layers are quantized",
        bad="nothing is quantized",
    )


def quantized_not_ignored(contents: Contents) -> Check:
    """Ask whether an engine would take a quantized layer for an unquantized one."""
    quantized = [name for name, module in contents.modules.items() if is_quantized(module)]
    faults = [n for n in quantized if contents.is_declared and contents.expected[n] is None]
    return finding(
        "quantized-layers-declared",
        faults,
        good=f"{len(quantized)} quantized layers, none of them ignored",
        bad=f"{len(faults)} of {len(quantized)} quantized layers are on the ignore list",
    )


def unquantized_ignored(contents: Contents) -> Check:
    """Ask whether an engine would look for scales of a layer that has none."""
    plain = [name for name, module in contents.modules.items() if is_plain_linear(name, module)]
    plain += [name for name, module in contents.modules.items() if stacked_experts(name, module)]
    # Engines never quantize the part that sees, so it needs no entry.
    faults = [n for n in plain if contents.expected[n] is not None and not is_vision(n)]
    return finding(
        "unquantized-layers-ignored",
        faults,
        good=f"{len(plain)} unquantized layers, all of them ignored",
        bad=f"{len(faults)} of {len(plain)} unquantized layers are not on the ignore list",
    )


def patterns_used(contents: Contents) -> Check:
    """Ask whether each entry of the ignore list hits something."""
    patterns = contents.declared.ignore if contents.declared else ()
    names = {name for module in contents.modules for name in engine_names(module)}
    tied = bool(contents.config.get("tie_word_embeddings"))
    names |= {"lm_head"} if tied else set()
    idle = [p for p in patterns if not any(matches(name, p) for name in names)]
    return finding(
        "ignore-patterns-used",
        idle,
        good=f"each of {len(patterns)} entries of the ignore list hits something",
        bad=f"{len(idle)} of {len(patterns)} entries of the ignore list hit nothing",
        severity=Severity.WARNING,
    )


def routers_and_vision_plain(contents: Contents) -> Check:
    """Ask whether a router or the part that sees was quantized by a rule that matched too much."""
    layers = contents.declared.layers if contents.declared else {}
    faults = [
        name
        for name, module in contents.modules.items()
        if is_quantized(module)
        and name not in layers
        and (is_vision(name) or is_router(name, contents.modules))
    ]
    return finding(
        "routers-and-vision-unquantized",
        faults,
        good="no router and no vision layer is quantized",
        bad=f"{len(faults)} routers or vision layers are quantized",
    )
