"""Is the quantization declared, in a way that engines know, and once?"""

from harness.artifacts import Check, Severity
from harness.formats.compressed import MIXED, is_pattern_broken
from harness.verify.contents import Contents
from harness.verify.declared import Declaration
from harness.verify.finding import finding
from harness.verify.layouts import COMPRESSED, LAYOUTS, MODELOPT, PACKINGS
from harness.verify.modules import (
    is_plain_linear,
    is_quantized,
    is_vision,
    routers_of,
    stacked_experts,
)

_MODELOPT_METHODS = {"modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"}
_NVFP4, _NVFP4_BLOCK = ("NVFP4", "W4A16_NVFP4"), 16
_KV_ALGOS = {None, "FP8", "NVFP4"}
_NEVER_ASKED = ("vision_tower", "vision_model", "vit_large_projector")
"""Parts of names of what modelopt's loaders build unquantized without asking the list.

Source: vLLM 0.33.0, modelopt.py, `ModelOptQuantConfigBase.get_quant_method`.
"""


def quantization_declared(contents: Contents) -> Check:
    """Ask whether an engine will know that, and how, the checkpoint is quantized."""
    declared = contents.declared
    faults = ["config.json has no quantization_config"] if declared is None else _unknown(declared)
    algo = declared.algo if declared else None
    return finding(
        "quantization-declared",
        faults,
        good=f"{declared.layout if declared else ''}: the algorithm is {algo}",
        bad="an engine would not know how the checkpoint is quantized",
    )


def _unknown(declared: Declaration) -> list[str]:
    faults = _unknown_groups(declared) if declared.layout == COMPRESSED else _unknown_algo(declared)
    faults += [f"{fault}, in {declared.source}" for fault in declared.malformed]
    if declared.kv_algo not in _KV_ALGOS:
        faults.append(f"the KV cache's format '{declared.kv_algo}' is unknown")
    return faults


def _unknown_algo(declared: Declaration) -> list[str]:
    faults = []
    known = {*LAYOUTS[MODELOPT], MIXED}
    if declared.method not in {None, *_MODELOPT_METHODS}:
        faults.append(f"quant_method is '{declared.method}', not modelopt or {COMPRESSED}")
    if declared.algo is None:
        faults.append(f"quant_algo is null in {declared.source}")
    elif declared.algo not in known:
        faults.append(f"quant_algo '{declared.algo}' is none of {', '.join(sorted(known))}")
    if declared.algo == MIXED:
        odd = {algo for algo in declared.layers.values() if algo not in LAYOUTS[MODELOPT]}
        faults += [f"quantized_layers has the unknown quant_algo '{algo}'" for algo in sorted(odd)]
        if not declared.layers:
            faults.append("quantized_layers is empty")
    return faults


def _unknown_groups(declared: Declaration) -> list[str]:
    faults = [] if declared.groups else ["config_groups has no group of linear layers"]
    for group in declared.groups:
        if group.algorithm is None:
            faults.append(f"{group.name} has weights or inputs of a kind that is not checked here")
        elif group.algorithm not in PACKINGS.get(group.format, ()):
            faults.append(f"{group.name} is {group.algorithm} in the format '{group.format}'")
        if not group.targets:
            faults.append(f"{group.name} has no targets")
    entries = (*declared.ignore, *(target for group in declared.groups for target in group.targets))
    faults += [
        f"'{entry}' is no regular expression" for entry in entries if is_pattern_broken(entry)
    ]
    return faults


def declarations_agree(contents: Contents) -> Check:
    """Ask whether config.json and hf_quant_config.json say the same, and what the format means."""
    faults = []
    if len(contents.declarations) > 1:
        first, second = contents.declarations
        pairs = (
            ("quant_algo", first.algo, second.algo),
            ("the KV cache's algorithm", first.kv_algo, second.kv_algo),
            # modelopt's MXFP8 says it in one of the files alone
            (
                "group_size",
                first.group_size or second.group_size,
                second.group_size or first.group_size,
            ),
            ("the ignore list", sorted(first.ignore), sorted(second.ignore)),
            ("quantized_layers", dict(first.layers), dict(second.layers)),
        )
        faults = [
            f"{what} is {_short(left)} in {first.source} and {_short(right)} in {second.source}"
            for what, left, right in pairs
            if left != right
        ]
    faults += [
        f"group_size is {one.group_size} in {one.source} and {_NVFP4_BLOCK} in the tensors of NVFP4"
        for one in contents.declarations
        if one.algo in _NVFP4 and one.group_size not in (None, _NVFP4_BLOCK)
    ]
    return finding(
        "declarations-agree",
        faults,
        good="the declarations agree" if len(contents.declarations) > 1 else "one declaration",
        bad="config.json, hf_quant_config.json and the format contradict each other",
    )


def _short(value: object) -> str:
    return f"{len(value)} entries" if isinstance(value, list | dict) else f"'{value}'"


def something_quantized(contents: Contents) -> Check:
    """Ask whether any layer is quantized at all."""
    count = sum(is_quantized(module) for module in contents.modules.values())
    is_known = count or not any(shard.problem for shard in contents.shards)
    return finding(
        "quantized-layers-exist",
        ["no tensor is packed and none is a scale"] if is_known and not count else [],
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
    faults = [
        name
        for name in plain
        if contents.expected[name] is not None and not _is_never_quantized(contents, name)
    ]
    return finding(
        "unquantized-layers-ignored",
        faults,
        good=f"{len(plain)} unquantized layers, all of them ignored",
        bad=f"{len(faults)} of {len(plain)} unquantized layers are not on the ignore list",
    )


def patterns_used(contents: Contents) -> Check:
    """Ask whether each entry of the ignore list hits something."""
    declared = contents.declared
    patterns = declared.ignore if declared else ()
    tied = ("lm_head",) if contents.config.get("tie_word_embeddings") else ()
    names = [*contents.modules, *tied]
    idle = declared.idle_entries(names) if declared else []
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
    routers = routers_of(contents.modules)
    faults = [
        name
        for name, module in contents.modules.items()
        if is_quantized(module)
        and name not in layers
        and (_is_foreign_vision(contents, name) or name in routers)
    ]
    return finding(
        "routers-and-vision-unquantized",
        faults,
        good="no router and no vision layer is quantized",
        bad=f"{len(faults)} routers or vision layers are quantized",
    )


def _is_foreign_vision(contents: Contents, name: str) -> bool:
    """Return whether a layer sees and no declaration means it; compressed-tensors lists all."""
    is_compressed = contents.declared is not None and contents.declared.layout == COMPRESSED
    return is_vision(name) and not is_compressed


def _is_never_quantized(contents: Contents, name: str) -> bool:
    """Return whether engines take a module as unquantized whatever is declared.

    modelopt's loaders do so with what is called so; those of compressed-tensors never do.
    """
    is_compressed = contents.declared is not None and contents.declared.layout == COMPRESSED
    return not is_compressed and any(part in name for part in _NEVER_ASKED)
