"""Which linear layers of a model may be quantized, and what everything else with a matrix is.

Told by what a module is and where it stands, not by its name: of an embedding, a router, a
convolution or a tower nothing is quantized, whatever they are called.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from harness.engines import INDEXER
from harness.errors import ModelError
from harness.models.decoder import Decoder, find_decoder
from harness.models.routed import Experts, find_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK, _NARROW, _FLAT = 16, 64, 16
"""A linear layer with fewer inputs or outputs than a block of NVFP4 is left as it is, and one with
fewer than the second and the third times more of the other: one value a head, or the gate of a
shared expert. Such layers are sensitive, and nothing is saved. Heads are 64 wide and wider, so none
of their projections is."""
OUTPUT_TIED = "output layer tied to the embedding"
_MATRIX = 2
_CONVOLUTION = nn.modules.conv._ConvNd  # noqa: SLF001  # their only common class


class Kinds(NamedTuple):
    """The modules of a model by what they are."""

    linears: Mapping[str, nn.Linear]
    """Those that may be quantized, by path."""
    experts: Sequence[Experts]
    """Those that may be quantized."""
    kept: Mapping[str, str]
    """Every other layer with a matrix, to what it is. Bare matrices of the decoder's modules, such
    as A_log of Mamba, are none: no engine asks about them."""


def find_kinds(model: "PreTrainedModel") -> Kinds:
    """Look at every module of a model.

    Raises:
        ModelError: there is no decoder, or routed experts or their router are not understood.
    """
    decoder = find_decoder(model)
    text = model.config.get_text_config()
    hidden_size = text.hidden_size
    counts_experts = any("expert" in key for key in text.to_dict())
    experts = [one for one in find_experts(model, hidden_size) if decoder.holds(one.path)]
    look = _Look(model, decoder, routers_of(model, decoder, experts))
    routed = {one.path for one in experts}
    linears: dict[str, nn.Linear] = {}
    kept: dict[str, str] = {}
    for path, module in model.named_modules():
        if path in routed or not _has_matrix(module):
            continue
        if counts_experts and decoder.runs(path):
            _refuse_strange_stack(path, module)
        what = look.reason_to_keep(path, module)
        if what is None and isinstance(module, nn.Linear):
            linears[path] = module
        elif _is_layer(module) or not decoder.runs(path):
            kept[path] = what or "not a linear layer"
    for path in _indexers(linears, kept):
        del linears[path]
        kept[path] = "indexer of sparse attention"
    return Kinds(linears, experts, kept)


def _indexers(linears: Mapping[str, nn.Linear], kept: Mapping[str, str]) -> list[str]:
    """Return the layers of sparse attention's indexers that engines run unquantized."""
    found = []
    for path in linears:
        parent, _, leaf = path.rpartition(".")
        siblings = {f"{parent}.{other}" for other in INDEXER}
        if leaf in INDEXER and siblings <= linears.keys() | kept.keys():
            found.append(path)
    return found


class _Look:
    """Says what a module is."""

    def __init__(self, model: "PreTrainedModel", decoder: Decoder, routers: frozenset[str]) -> None:
        self._decoder, self._routers = decoder, routers
        self._outputs = list(_outputs(model, decoder))
        embeddings = (m for m in model.modules() if isinstance(m, nn.Embedding))
        self._embedded = {id(m.weight) for m in embeddings}

    def reason_to_keep(self, path: str, module: nn.Module) -> str | None:
        """Return what a module is that may not be quantized; None for one that may."""
        is_output = any(module is output for output in self._outputs)
        reasons = (
            (path in self._routers, "router"),
            (isinstance(module, nn.Embedding), "embedding"),
            (isinstance(module, _CONVOLUTION), "convolution"),
            (not is_output and not self._decoder.runs(path), "outside of the text decoder"),
        )
        for holds, what in reasons:
            if holds:
                return what
        return self._reason_of_linear(module, is_output=is_output)

    def _reason_of_linear(self, module: nn.Module, *, is_output: bool) -> str | None:
        if not isinstance(module, nn.Linear):
            return "not a linear layer"
        if id(module.weight) in self._embedded:
            return OUTPUT_TIED
        if not _is_plain(type(module)):
            return f"linear layer that computes in its own way ({type(module).__name__})"
        less, more = sorted((module.in_features, module.out_features))
        is_small = less < _BLOCK or (less < _NARROW and more >= _FLAT * less)
        return "small projection" if is_small and not is_output else None


def _is_plain(kind: type[nn.Module]) -> bool:
    """Tell whether a class of linear layers computes what nn.Linear does: it is tried."""
    if kind.forward is nn.Linear.forward:
        return True
    layer, x = nn.Linear(3, 5), torch.eye(3)
    with torch.no_grad():
        try:
            found = kind.forward(layer, x)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return False
        return isinstance(found, Tensor) and torch.equal(found, layer(x))


def routers_of(model: nn.Module, decoder: Decoder, experts: Sequence[Experts]) -> frozenset[str]:
    """Return the paths of the modules that choose experts.

    transformers says what it records as router logits: instances of a class, or modules of a name.
    Where it does not, the router is the one module beside the experts with an output an expert.

    Raises:
        ModelError: experts have no router, several modules could be it, or a router chooses among
            experts that were not found.
    """
    recorded = {path for path in _recorded(model) if decoder.holds(path)}
    found: set[str] = set()
    blocks: set[str] = set()
    for one in experts:
        near = {path for path in recorded if _is_within(path, one.block)}
        holders = {path for path in recorded if _is_within(one.path, path)}
        found |= (near - holders) or set(_by_shape(model, one))
        blocks |= near | holders
    if alone := sorted(recorded - blocks):
        message = (
            f"'{alone[0]}' ({type(model.get_submodule(alone[0])).__name__}) chooses among "
            "experts that are not understood: no module beside it holds one 3-D parameter a "
            "projection. The model would be quantized without its experts."
        )
        raise ModelError(message)
    return frozenset(_matrices_in(model, found))


def _outputs(model: "PreTrainedModel", decoder: Decoder) -> Iterator[nn.Module]:
    """Yield the layers that turn hidden states into logits: of the models around the decoder."""
    from transformers import PreTrainedModel  # noqa: PLC0415 -- takes seconds

    for path, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and _is_within(decoder.path, path):
            output = module.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers
            if isinstance(output, nn.Module):
                yield output


def _recorded(model: nn.Module) -> Iterator[str]:
    """Yield the modules whose output transformers records as router logits."""
    classes: list[type] = []
    names: list[str] = []
    for module in model.modules():
        recorders = (getattr(module, "_can_record_outputs", None) or {}).get("router_logits")
        for recorder in recorders if isinstance(recorders, list | tuple) else [recorders]:
            target = getattr(recorder, "target_class", recorder)
            name = getattr(recorder, "layer_name", None)
            if name:
                names.append(f".{name}")
            elif isinstance(target, type) and target is not nn.Linear:
                classes.append(target)
    for path, module in model.named_modules():
        if isinstance(module, tuple(classes)) or f".{path}".endswith(tuple(names)):
            yield path


def _by_shape(model: nn.Module, experts: Experts) -> list[str]:
    """Return the one module beside experts that has an output for each of them.

    Experts that pass their input on count where one of the parameters has a place for them.

    Raises:
        ModelError: there is none, or there are several.
    """
    _, hidden = experts.size_of(experts.projections[0])
    outputs = sorted({shape[0] for shape in experts.shapes.values()})
    shapes = {(count, hidden) for count in outputs}
    found = []
    for path, module in model.get_submodule(experts.block).named_modules(prefix=experts.block):
        weight = getattr(module, "weight", None)
        is_router = isinstance(weight, Tensor) and tuple(weight.shape) in shapes
        if is_router and not _is_within(path, experts.path):
            found.append(path)
    if len(found) != 1:
        message = (
            f"the router of the experts in '{experts.path}' was not found: "
            f"{len(found)} modules beside them have {' or '.join(map(str, outputs))} outputs"
            f"{''.join(f', {path}' for path in found)}. Exactly one is understood, or the one that "
            "transformers names."
        )
        raise ModelError(message)
    return found


def _matrices_in(model: nn.Module, paths: Iterable[str]) -> Iterator[str]:
    """Yield the modules at or below `paths` that hold a matrix themselves."""
    for path in paths:
        for name, module in model.get_submodule(path).named_modules(prefix=path):
            if _has_matrix(module):
                yield name


def _is_within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}.") or not parent


def _refuse_strange_stack(path: str, module: nn.Module) -> None:
    """Refuse several matrices in one parameter that are no experts: they could be anything.

    Raises:
        ModelError: with the module's name.
    """
    if isinstance(module, _CONVOLUTION):
        return
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > _MATRIX and min(parameter.shape[-2:]) >= _NARROW:
            message = (
                f"'{path}' ({type(module).__name__}) holds several matrices in '{name}' "
                f"{list(parameter.shape)} and is not understood: it is no convolution, and its "
                "experts, if it has any, are not read. The model would be quantized in part."
            )
            raise ModelError(message)


def _is_layer(module: nn.Module) -> bool:
    """Tell whether a matrix is a module's weight, which engines may ask about by its name."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= _MATRIX


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim >= _MATRIX for parameter in module.parameters(recurse=False))
