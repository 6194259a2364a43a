"""List every weight of a model: what could be quantized, what not, and where it lies.

The running model's structure (built without memory) says what there is; the files' headers say
where each piece is stored. Both layouts of routed experts are read, layer by layer: fused (one
3-D tensor for all experts) and per expert. Every tensor of the files must find its place, and
every parameter of the model its tensor; what does not is an error, for a weight that silently
stays random or is silently dropped is the kind of fault this project exists for.

The same holds for exported checkpoints: their packed weights have other shapes, so shapes come
from the model, and scales beside a linear layer are expected.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

from harness.artifacts import Attention, Inventory, Linear, Slice, TensorHeader
from harness.errors import ModelError
from harness.models.family import Family
from harness.models.source import Source
from harness.models.structure import build_model, find_family

_FLOATS = frozenset({"BF16", "F16", "F32", "F64"})
_SCALES = ("weight_scale", "weight_scale_inv", "weight_scale_2", "input_scale")


class _Wanted(NamedTuple):
    """A tensor that the files must have, and its shape where it is not packed."""

    tensor: str
    shape: tuple[int, ...]


def read_inventory(source: Source) -> Inventory:
    """List the weights of `source` without reading any.

    Raises:
        ModelError: the family is unknown, or the files do not fit the model's structure.
    """
    family = find_family(source)
    _refuse_other_quantizers(source)
    skeleton = build_model(source, device=torch.device("meta"), dtype=torch.bfloat16)
    linears = tuple(_linears(skeleton, family, source.tensors))
    covered = frozenset(linear.parameter.tensor for linear in linears)
    others = _others(skeleton, family, source.tensors, covered)
    attentions = _attentions(linears)
    _check_wanted(source, [*_wanted_by(skeleton, linears), *others.values()])
    extra = _extra(source, family, linears, frozenset(w.tensor for w in others.values()))
    modules_without_place = [n.rpartition(".")[0] for n in extra if len(extra[n].shape) > 1]
    return Inventory(
        model_type=str(source.config["model_type"]),
        family=family.name,
        linears=linears,
        others={parameter: wanted.tensor for parameter, wanted in others.items()},
        attentions=attentions,
        unquantizable=tuple(
            dict.fromkeys([*_not_linear(skeleton, family, covered), *modules_without_place])
        ),
        tensors=source.tensors,
        digest=source.digest,
    )


def _refuse_other_quantizers(source: Source) -> None:
    """Refuse checkpoints whose packing is not the one that harness writes."""
    quantization = source.config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if quantization is not None and method != "modelopt":
        message = (
            f"'{source.name}' is quantized already, by '{method}'. Give the unquantized model, or "
            "a checkpoint in the layout of Model-Optimizer."
        )
        raise ModelError(message)


def _linears(
    skeleton: nn.Module, family: Family, tensors: Mapping[str, TensorHeader]
) -> Iterator[Linear]:
    """Yield the weights that could be quantized, in the order of the model."""
    # An output layer tied to the embedding has no weight of its own to quantize.
    embeddings = {id(m.weight) for m in skeleton.modules() if isinstance(m, nn.Embedding)}
    for name, module in skeleton.named_modules():
        if family.experts and name.endswith(family.experts):
            yield from _routed_linears(name, module, family, tensors)
        elif (
            isinstance(module, nn.Linear)
            and id(module.weight) not in embeddings
            and not name.endswith(family.routers)
        ):
            yield _plain_linear(name, module, family)


def _plain_linear(name: str, module: nn.Linear, family: Family) -> Linear:
    in_files = family.file_name(name)
    return Linear(
        name=in_files,
        source=Slice(tensor=f"{in_files}.weight"),
        parameter=Slice(tensor=f"{name}.weight"),
        shape=(module.out_features, module.in_features),
        weight_quantizer=f"{name}.weight_quantizer",
        input_quantizer=f"{name}.input_quantizer",
        group=family.group(in_files),
        experts=None,
        expert=None,
    )


def _routed_linears(
    name: str, module: nn.Module, family: Family, tensors: Mapping[str, TensorHeader]
) -> Iterator[Linear]:
    """Yield every projection of every expert of one layer."""
    shapes = {p: tuple(module.get_parameter(p).shape) for p in family.projections}
    num_experts = next(iter(shapes.values()))[0]
    for expert in range(num_experts):
        for parameter, leaves in family.projections.items():
            num_rows = shapes[parameter][1] // len(leaves)
            fused = f"{family.file_name(name)}.{parameter}"
            for index, leaf in enumerate(leaves):
                in_files = f"{family.file_name(name)}.{expert}.{leaf}"
                rows = (index * num_rows, (index + 1) * num_rows) if len(leaves) > 1 else None
                yield Linear(
                    name=in_files,
                    source=Slice(tensor=fused, expert=expert, rows=rows)
                    if fused in tensors
                    else Slice(tensor=f"{in_files}.weight"),
                    parameter=Slice(tensor=f"{name}.{parameter}", expert=expert, rows=rows),
                    shape=(num_rows, shapes[parameter][2]),
                    weight_quantizer=f"{name}.{parameter}_weight_quantizers.{expert}",
                    input_quantizer=f"{name}.{parameter}_input_quantizer",
                    group=family.group(in_files),
                    experts=name,
                    expert=expert,
                )


def _others(
    skeleton: nn.Module,
    family: Family,
    tensors: Mapping[str, TensorHeader],
    covered: frozenset[str],
) -> dict[str, _Wanted]:
    """Return the parameters and stored buffers that no linear layer covers, to their tensors."""
    state = skeleton.state_dict(keep_vars=True)
    tied: dict[int, list[str]] = {}
    for name, value in state.items():
        tied.setdefault(id(value), []).append(family.file_name(name))
    others: dict[str, _Wanted] = {}
    for name, value in state.items():
        if name not in covered:
            spellings = [family.file_name(name), *tied[id(value)]]
            stored = next((s for s in spellings if s in tensors), spellings[0])
            others[name] = _Wanted(tensor=stored, shape=tuple(value.shape))
    return others


def _attentions(linears: tuple[Linear, ...]) -> tuple[Attention, ...]:
    """Return the layers that keep keys and values: those that project both."""
    names = {linear.parameter.tensor.removesuffix(".weight") for linear in linears}
    return tuple(
        Attention(name=path)
        for linear in linears
        if (path := linear.parameter.tensor.removesuffix(".k_proj.weight"))
        and f"{path}.k_proj" in names
        and f"{path}.v_proj" in names
    )


def _wanted_by(skeleton: nn.Module, linears: tuple[Linear, ...]) -> Iterator[_Wanted]:
    """Yield the tensors that the linear layers are read from."""
    shapes: dict[str, tuple[int, ...]] = {}
    for linear in linears:
        if linear.source.expert is None:
            yield _Wanted(tensor=linear.source.tensor, shape=linear.shape)
        elif linear.source.tensor not in shapes:
            shape = tuple(skeleton.get_parameter(linear.parameter.tensor).shape)
            shapes[linear.source.tensor] = shape
            yield _Wanted(tensor=linear.source.tensor, shape=shape)


def _check_wanted(source: Source, wanted: list[_Wanted]) -> None:
    """Refuse files that lack a tensor of the model, or have it in another shape."""
    if missing := [w.tensor for w in wanted if w.tensor not in source.tensors]:
        message = (
            f"'{source.name}' lacks {len(missing)} tensor(s) that its config.json asks for, such "
            f"as '{missing[0]}'. Download the model again, or correct config.json."
        )
        raise ModelError(message)
    for tensor, shape in wanted:
        header = source.tensors[tensor]
        # A packed weight has fewer columns, never other rows.
        num_dims = len(shape) if header.dtype in _FLOATS else 1
        if header.shape[:num_dims] != shape[:num_dims]:
            message = (
                f"'{tensor}' has the shape {list(header.shape)}, but config.json asks for "
                f"{list(shape)}. Correct config.json, or download the model again."
            )
            raise ModelError(message)


def _extra(
    source: Source, family: Family, linears: tuple[Linear, ...], others: frozenset[str]
) -> dict[str, TensorHeader]:
    """Return the tensors that the running model has no place for and that are copied."""
    placed = {linear.source.tensor for linear in linears} | others
    for linear in linears:
        placed.update(f"{linear.name}.{scale}" for scale in _SCALES)
        placed.update(f"{linear.name}.{kind}_scale" for kind in "kv" if linear.experts is None)
    extra = {name: header for name, header in source.tensors.items() if name not in placed}
    known = re.compile(family.passthrough or "(?!)")
    if strange := [name for name in extra if not known.fullmatch(name)]:
        message = (
            f"'{source.name}' has {len(strange)} tensor(s) that its model has no place for, such "
            f"as '{strange[0]}'. If they are to be copied, say so in "
            f"harness/models/{family.name}.py (passthrough)."
        )
        raise ModelError(message)
    return extra


def _not_linear(skeleton: nn.Module, family: Family, covered: frozenset[str]) -> Iterator[str]:
    """Yield the modules that hold a matrix which is no weight of a linear layer."""
    for path, module in skeleton.named_modules():
        for leaf, value in module.named_parameters(recurse=False):
            if value.ndim > 1 and f"{path}.{leaf}" not in covered:
                yield family.file_name(path)
