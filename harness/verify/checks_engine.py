"""Would an engine take the checkpoint for what it is? In full with `--engine`, by its own rules."""

from harness.artifacts import Check, Severity
from harness.formats.compressed import MIXED
from harness.verify.contents import Contents
from harness.verify.engine_names import (
    Asked,
    CompressedList,
    EngineLayer,
    ModeloptList,
    engine_layers,
    unknown_projections,
)
from harness.verify.engines import ALGORITHMS, Engine, EngineFamily
from harness.verify.finding import finding
from harness.verify.layouts import COMPRESSED, MODELOPT
from harness.verify.modules import is_plain_linear, is_quantized, stacked_experts


def format_loadable(contents: Contents) -> Check:
    """Ask whether the engine, or any known one, has a loader for each algorithm."""
    declared = contents.declared
    layout = declared.layout if declared else MODELOPT
    known = (contents.engine.algorithms if contents.engine else ALGORITHMS)[layout]
    algos = {a for a in contents.expected.values() if a} - known
    where = contents.engine.name if contents.engine else "no known version of vLLM"
    return finding(
        "engine-loads-format",
        [f"{algo} in the layout of {layout}" for algo in sorted(algos)],
        good=f"{contents.engine.name if contents.engine else 'vLLM'} loads what is declared",
        bad=f"{where} cannot load the format"
        if contents.engine
        else f"{where} can load the format; other engines may",
        severity=Severity.ERROR if contents.engine else Severity.WARNING,
    )


def engine_names_resolved(contents: Contents) -> Check:
    """Ask the engine's question of each of its layers, under the engine's own names."""
    engine, family = _engine(contents), _family(contents)
    if family is None:
        return _unknown_family(contents, engine)
    layers = list(engine_layers(_asked(contents), family))
    faults = list(_misjudged(contents, layers, family))
    faults += [
        f"{path}: the loader takes no expert projection called {' or '.join(names)}"
        for path, names in unknown_projections(contents.modules, family).items()
    ]
    return finding(
        "engine-names-resolved",
        faults,
        good=f"{engine.name} takes each of its {len(layers)} layers for what the files hold",
        bad=f"{engine.name} takes {len(faults)} of its {len(layers)} layers for something else",
    )


def _unknown_family(contents: Contents, engine: Engine) -> Check:
    known = ", ".join(engine.families)
    return finding(
        "engine-names-resolved",
        [f"model_type '{contents.config.get('model_type')}' is none of {known}"],
        good="",
        bad=f"the names that {engine.name} gives this model's layers are not known here",
        severity=Severity.WARNING,
    )


def _asked(contents: Contents) -> list[str]:
    """Return the modules that are linear layers or experts."""
    return [
        name
        for name, module in contents.modules.items()
        if is_quantized(module) or is_plain_linear(name, module) or stacked_experts(name, module)
    ]


def _misjudged(contents: Contents, layers: list[EngineLayer], family: EngineFamily) -> list[str]:
    declared = contents.declared
    if declared is None or declared.algo is None:
        return []
    if declared.algo == MIXED and not declared.groups:
        return []  # named layer by layer; other checks compare the names
    rules: CompressedList | ModeloptList = ModeloptList(declared.ignore, family)
    if declared.layout == COMPRESSED:
        rules = CompressedList(declared.ignore, declared.groups, _engine(contents), family)
    asked = (
        _misjudged_layer(contents, layer, rules.ask(layer))
        for layer in layers
        if layer.name.rpartition(".")[2] not in family.never_quantized
    )
    return [f"{name}: {fault}" for name, fault in asked if fault]


def _misjudged_layer(contents: Contents, layer: EngineLayer, asked: Asked) -> tuple[str, str]:
    """Return a layer's name and what is wrong between the engine's answer and the files."""
    held = {is_quantized(contents.modules[member]) for member in layer.members}
    if asked.is_split:
        return layer.name, "the list names some of its parts, so the engine stops"
    if held == {False} and asked.is_quantized:
        return layer.name, "unquantized in the files, but nothing excludes it"
    if held == {True} and not asked.is_quantized:
        return layer.name, "quantized in the files, but the list excludes it"
    return layer.name, ""


def engine_widths(contents: Contents) -> Check:
    """Ask for NVFP4 layers whose input width the engine's kernels pad wrongly."""
    engine = _engine(contents)
    faults = []
    for name, module in contents.modules.items():
        layout = contents.layout_of(name)
        if (
            not is_quantized(module)
            or layout is None
            or "NVFP4" not in (contents.algo_of(name) or "")
        ):
            continue
        weight = module.get(layout.tensors["weight"].leaf)
        if weight is not None and weight.shape[-1] * layout.packed % engine.width_multiple:
            faults.append(f"{name} is {weight.shape[-1] * layout.packed} wide")
    return finding(
        "engine-widths",
        faults,
        good=f"input widths of NVFP4 layers are multiples of {engine.width_multiple}",
        bad=f"{len(faults)} NVFP4 layers have an input width that is no multiple of "
        f"{engine.width_multiple}: some kernels of {engine.name} answer with garbage",
        severity=Severity.WARNING,
    )


def _engine(contents: Contents) -> Engine:
    """Return the engine; these checks run only where one was named."""
    if contents.engine is None:
        message = "a check of the engine's names ran without an engine"
        raise AssertionError(message)
    return contents.engine


def _family(contents: Contents) -> EngineFamily | None:
    return _engine(contents).families.get(str(contents.config.get("model_type")))
