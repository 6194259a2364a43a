"""Would an engine take the checkpoint for what it is? In full with `--engine`, by its own rules."""

from collections.abc import Iterator

from harness.artifacts import Check, Severity
from harness.engines import (
    LOADED,
    MODELOPT,
    WIDTH_MULTIPLE,
    Asked,
    Engine,
    EngineFamily,
    EngineLayer,
)
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.modules import (
    expert_of,
    is_draft,
    is_plain_linear,
    is_quantized,
    routers_of,
)

_BLOCK = 128
_PROJECTIONS = frozenset({"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""What loaders take that name no projections of their own."""


def format_loadable(contents: Contents) -> Check:
    """Ask whether the engine, or any known one, has a loader for each algorithm."""
    layout = contents.declared.layout if contents.declared else MODELOPT
    algorithms = {a for a in contents.expected.values() if a} - LOADED.get(layout, frozenset())
    where = contents.engine.name if contents.engine else "no known version of vLLM"
    return finding(
        "engine-loads-format",
        [f"{algorithm} in the layout of {layout}" for algorithm in sorted(algorithms)],
        good=f"{contents.engine.name if contents.engine else 'vLLM'} loads what is declared",
        bad=f"{where} cannot load the format"
        if contents.engine
        else f"{where} can load the format; other engines may",
        severity=Severity.ERROR if contents.engine else Severity.WARNING,
    )


def engine_names_resolved(contents: Contents) -> Check:
    """Ask the engine's question of each of its layers, under the engine's own names."""
    engine = _engine(contents)
    family = engine.family_of(contents.config)
    if family is None:
        return finding(
            "engine-names-resolved",
            [f"{_architecture(contents)} is none of its {len(engine.families)} architectures"],
            good="",
            bad=f"the names that {engine.name} gives this model's layers are not known here",
            severity=Severity.WARNING,
        )
    rules = contents.rules if contents.is_declared else None
    layers = list(rules.layers(_asked(contents))) if rules else []
    faults = list(_misjudged(contents, layers, family))
    faults += _unknown_projections(contents, family)
    return finding(
        "engine-names-resolved",
        faults,
        good=f"{engine.name} takes each of its {len(layers)} layers for what the files hold",
        bad=f"{engine.name} takes {len(faults)} of its {len(layers)} layers for something else",
    )


def _architecture(contents: Contents) -> str:
    named = contents.config.get("architectures")
    return f"{named}" if named else "config.json names no architecture, which"


def _asked(contents: Contents) -> list[str]:
    """Return the modules that are linear layers or experts of the model that answers."""
    routers = routers_of(contents.modules)
    return [
        name
        for name, module in contents.modules.items()
        if not is_draft(name, contents.drafts)
        and (is_quantized(module) or (is_plain_linear(name, module) and name not in routers))
    ]


def _misjudged(
    contents: Contents, layers: list[tuple[EngineLayer, Asked]], family: EngineFamily
) -> Iterator[str]:
    for layer, asked in layers:
        if layer.last in family.never_asked:
            continue
        held = {is_quantized(contents.modules[member]) for member in layer.members}
        if asked.is_split:
            yield f"{layer.name}: the list names some of its parts, so the engine stops"
        elif held == {False} and asked.algorithm:
            yield f"{layer.name}: unquantized in the files, but nothing excludes it"
        elif held == {True} and not asked.algorithm:
            yield f"{layer.name}: quantized in the files, but the list excludes it"


def _unknown_projections(contents: Contents, family: EngineFamily) -> Iterator[str]:
    """Yield the experts with projections whose names the loader does not take."""
    known = frozenset(family.experts) | (frozenset() if family.experts else _PROJECTIONS)
    found: dict[str, set[str]] = {}
    for name in contents.modules:
        expert = expert_of(name)
        if expert and family.rename(name).rpartition(".")[2] not in known:
            found.setdefault(expert.experts, set()).add(expert.projection)
    for path, names in found.items():
        listed = " or ".join(sorted(names))
        yield f"{path}: the loader takes no expert projection called {listed}"


def engine_widths(contents: Contents) -> Check:
    """Ask for layers whose input width the engine's kernels pad wrongly, or do not take."""
    engine = _engine(contents)
    faults, refused = [], []
    for name, module in contents.modules.items():
        layout = contents.layout_of(name) if is_quantized(module) else None
        weight = module.get(layout.tensors["weight"].leaf) if layout else None
        if layout is None or weight is None:
            continue
        algorithm, width = contents.algo_of(name) or "", weight.shape[-1] * layout.packed
        if "NVFP4" in algorithm and width % WIDTH_MULTIPLE:
            faults.append(f"{name} is {width} wide")
        if algorithm == "FP8_PB_WO" and width % _BLOCK:
            refused.append(f"{name} is {width} wide")
    if refused:
        return finding(
            "engine-widths",
            refused,
            good="",
            bad=f"{engine.name} does not load {len(refused)} layers in blocks of {_BLOCK}, whose "
            "input width is no multiple of it",
        )
    return finding(
        "engine-widths",
        faults,
        good=f"input widths of NVFP4 layers are multiples of {WIDTH_MULTIPLE}",
        bad=f"{len(faults)} NVFP4 layers have an input width that is no multiple of "
        f"{WIDTH_MULTIPLE}: some kernels of {engine.name} answer with garbage",
        severity=Severity.WARNING,
    )


def _engine(contents: Contents) -> Engine:
    """Return the engine; these checks run only where one was named."""
    if contents.engine is None:
        message = "a check of the engine's names ran without an engine"
        raise AssertionError(message)
    return contents.engine
