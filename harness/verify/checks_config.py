"""Is the quantization declared, in a way that engines know, and once?"""

from collections.abc import Iterator

from harness.artifacts import Check, Severity
from harness.engines import (
    ALGORITHMS,
    COMPRESSED,
    KV,
    SIDECAR,
    Declaration,
    contradictions,
    is_pattern_broken,
)
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.idle_experts import is_idle
from harness.verify.modules import (
    is_plain_linear,
    is_quantized,
    is_vision,
    joins_draft,
    routers_of,
)

_KV_ALGORITHMS = {None, "FP8", "NVFP4"}


def quantization_declared(contents: Contents) -> Check:
    """Ask whether an engine will know that, and how, the checkpoint is quantized."""
    declared = contents.declared
    faults = list(_faults(declared)) if declared else ["config.json has no quantization_config"]
    algorithm = declared.algorithm if declared else None
    return finding(
        "quantization-declared",
        faults,
        good=f"{declared.layout if declared else ''}: the algorithm is {algorithm}",
        bad="an engine would not know how the checkpoint is quantized",
    )


def _faults(declared: Declaration) -> Iterator[str]:
    if declared.layout == COMPRESSED:
        yield from _faults_of_groups(declared)
    elif declared.algorithm is None:
        yield f"quant_algo is null in {declared.source}"
    elif declared.names_layers and not declared.layers:
        yield "quantized_layers is empty"
    yield from (f"{fault}, in {declared.source}" for fault in declared.malformed)
    if declared.kv_algorithm not in _KV_ALGORITHMS:
        yield f"the KV cache's format '{declared.kv_algorithm}' is unknown"


def _faults_of_groups(declared: Declaration) -> Iterator[str]:
    if not declared.groups:
        yield "config_groups has no group of linear layers"
    for group in declared.groups:
        if not group.is_packed_as_usual:
            yield f"{group.name} is {group.algorithm} in the format '{group.format}'"
        if not group.targets:
            yield f"{group.name} has no targets"
    for entry in (*declared.ignore, *(t for group in declared.groups for t in group.targets)):
        if is_pattern_broken(entry):
            yield f"'{entry}' is no regular expression"


def declaration_seen(contents: Contents) -> Check:
    """Ask for words that stand where engines do not read them."""
    unseen = [*contents.declared.unseen] if contents.declared else []
    said = [one.said.get(KV) for one in contents.declarations]
    if said[1:] and not said[0] and said[1] and contents.declarations[1].source == SIDECAR:
        unseen.append(f"{KV} is '{said[1]}' in {SIDECAR} alone: keys and values stay as they are")
    return finding(
        "declaration-seen",
        unseen,
        good="engines read all of the declaration",
        bad=f"of the declaration engines do not read {len(unseen)} thing(s)",
        severity=Severity.WARNING,
    )


def declarations_agree(contents: Contents) -> Check:
    """Ask whether config.json and hf_quant_config.json say the same, and what the format means."""
    declarations = contents.declarations
    faults = contradictions(declarations)
    faults += [f"{fault}, in {one.source}" for one in declarations[1:] for fault in one.malformed]
    for one in declarations[:1]:
        known = ALGORITHMS.get(one.algorithm or "")
        size = known.group_size if known else None
        if size and one.group_size not in (None, size):
            faults.append(
                f"group_size is {one.group_size} in {one.source} and {size} in {one.algorithm}"
            )
    return finding(
        "declarations-agree",
        faults,
        good="the declarations agree" if len(declarations) > 1 else "one declaration",
        bad="config.json, hf_quant_config.json and the format contradict each other",
    )


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
    """Ask whether an engine would look for scales of a layer that has none.

    Engines build routers, and some other layers, unquantized whatever is listed; see
    `unasked_ignored`.
    """
    plain, unasked = _plain(contents), _unasked(contents)
    faults = [name for name in _unlisted(contents, plain) if name not in unasked]
    return finding(
        "unquantized-layers-ignored",
        faults,
        good=f"{len(plain)} unquantized layers, all of them ignored",
        bad=f"{len(faults)} of {len(plain)} unquantized layers are not on the ignore list",
    )


def unasked_ignored(contents: Contents) -> Check:
    """Ask for routers and the like that are not listed: an engine may look for their scales.

    The named engine's own rules are known, so that with one nothing is left to warn of.
    """
    unasked = _unasked(contents)
    faults = [name for name in _unlisted(contents, _plain(contents)) if name in unasked]
    return finding(
        "routers-ignored",
        [] if contents.engine else faults,
        good="routers are on the ignore list, or the engine never asks",
        bad=f"{len(faults)} routers or layers like them are not on the ignore list; vLLM builds "
        "them unquantized",
        severity=Severity.WARNING,
    )


def _plain(contents: Contents) -> list[str]:
    return [
        name
        for name, module in contents.modules.items()
        if is_plain_linear(name, module) and not is_idle(name, contents.config)
    ]


def _unlisted(contents: Contents, plain: list[str]) -> list[str]:
    return [name for name in plain if contents.expected[name] is not None]


def _unasked(contents: Contents) -> frozenset[str]:
    """Return the layers that engines build unquantized whatever is listed."""
    rules, modules = contents.rules, contents.modules
    never = rules.never_asked(modules) if rules else frozenset()
    return routers_of(modules) | never | {name for name in modules if joins_draft(name)}


def patterns_used(contents: Contents) -> Check:
    """Ask whether each entry of the ignore list hits something."""
    patterns = contents.declared.ignore if contents.declared else ()
    tied = ("lm_head",) if contents.config.get("tie_word_embeddings") else ()
    idle = contents.rules.idle_entries([*contents.modules, *tied]) if contents.rules else []
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
