"""List every weight of a model: what could be quantized, what not, and where it lies.

The running model's structure (built without memory) says what there is; transformers' conversion of
the files' names says where each value is stored. Nothing here knows a family. Every tensor of the
files must find its place, and every parameter of the model its tensor; what does not is an error,
for a weight that silently stays random or is silently dropped is the kind of fault this project
exists for.

The same holds for exported checkpoints: their packed weights have other shapes, so shapes come
from the model, and scales beside a linear layer are expected.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.artifacts import Attention, Inventory, Linear, Piece, Slice
from harness.engines import fused_of
from harness.errors import ModelError
from harness.models.conversion import Arrived, Conversion
from harness.models.kinds import Kinds, find_kinds
from harness.models.names import Names
from harness.models.routed import Experts, Projection
from harness.models.shapes import plain_shapes, scale_names
from harness.models.slices import not_slices, read_blocks, read_pieces
from harness.models.source import Source, read_source
from harness.models.structure import build_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FLOATS = frozenset({"BF16", "F16", "F32", "F64"})
_LEFT_OUT = "left out of the running model"
_MATRIX = 2


def read_inventory(source: Source) -> Inventory:
    """List the weights of `source` without reading any.

    Raises:
        ModelError: the structure is not understood, or the files do not fit it.
    """
    _refuse_other_quantizers(source)
    skeleton = build_model(source, device=torch.device("meta"), dtype=torch.bfloat16)
    return _Reading(source, skeleton).inventory()


def layers_of(folder: Path) -> Mapping[str, Slice]:
    """Return where the weight of each linear layer of a model lies, by the layer's name.

    Raises:
        ModelError: as `read_inventory`.
    """
    return {one.name: one.source for one in read_inventory(read_source(folder)).linears}


class _Reading:
    """One model's structure beside its files."""

    def __init__(self, source: Source, skeleton: "PreTrainedModel") -> None:
        self._source, self._skeleton = source, skeleton
        self._kinds: Kinds = find_kinds(skeleton)
        self._state: Mapping[str, Tensor] = skeleton.state_dict(keep_vars=True)
        self._scales = scale_names(source.tensors)
        self._shapes = plain_shapes(source.tensors, self._scales)
        conversion = Conversion(skeleton)
        self._arrived, strange = conversion.place(self._shapes)
        self._names = Names(conversion, self._arrived)
        self._strange = dict.fromkeys(strange)
        """Tensors that have no place yet."""
        self._idle: list[Piece] = []
        """Matrices that nothing multiplies with."""

    def inventory(self) -> Inventory:
        """Put it all together."""
        linears = _grouped([*self._linears()])
        covered = {linear.parameter.tensor for linear in linears}
        others, pieces = self._others(covered)
        self._check_shapes(linears, others)
        left_out = self._left_out(linears)
        unquantizable = {self._names.module(p): what for p, what in self._kinds.kept.items()}
        unquantizable |= {
            name.rpartition(".")[0]: _LEFT_OUT
            for name in left_out
            if len(self._source.tensors[name].shape) >= _MATRIX
        }
        return Inventory(
            model_type=str(self._source.config["model_type"]),
            linears=linears,
            others=others,
            pieces=(*pieces, *self._idle),
            attentions=_attentions(linears),
            unquantizable=unquantizable,
            tensors=self._source.tensors,
            digest=self._source.digest,
        )

    def _linears(self) -> Iterator[Linear]:
        """Yield the weights that could be quantized, in the order of the model."""
        experts = {one.path: one for one in self._kinds.experts}
        for path, _ in self._skeleton.named_modules():
            if path in experts:
                yield from self._routed(experts[path])
            elif path in self._kinds.linears:
                yield from self._plain(path, self._kinds.linears[path])

    def _plain(self, path: str, module: nn.Linear) -> Iterator[Linear]:
        """Yield a linear layer of the model: several, where the files hold it as several."""
        parameter = f"{path}.weight"
        name = self._names.module(path)
        arrived = self._arrived.get(parameter)
        if own := self._own(name):
            pieces = [Piece(source=own, parameter=Slice(tensor=parameter))]
        elif arrived is None:
            raise self._lacking([parameter])
        else:
            pieces = read_pieces(parameter, arrived, self._shapes)
        for piece in pieces:
            whole = piece.source == Slice(tensor=piece.source.tensor)
            rows = piece.parameter.rows
            is_part = rows is not None or not whole
            yield Linear(
                name=piece.source.tensor.removesuffix(".weight") if whole else name,
                source=piece.source,
                parameter=piece.parameter,
                shape=(rows[1] - rows[0] if rows else module.out_features, module.in_features),
                weight_quantizer=f"{path}.weight_quantizer",
                input_quantizer=f"{path}.input_quantizer",
                group=name if is_part else "",
                experts=None,
                expert=None,
            )

    def _refuse_others_among(self, experts: Experts, first: str) -> None:
        """Refuse files that number experts of another module with these: engines run them as one.

        Args:
            experts: of a layer.
            first: name of the first one's first projection.

        Raises:
            ModelError: with the other module's first tensor.
        """
        base = first.removesuffix(f".0.{first.rpartition('.')[2]}")
        for parameter, arrived in self._arrived.items():
            is_other = not parameter.startswith(f"{experts.path}.")
            if is_other and len(arrived.tensors) > 1 and arrived.tensors[0].startswith(f"{base}."):
                message = (
                    f"'{arrived.tensors[0]}' belongs to '{parameter}', which is not quantized, but "
                    f"engines run all of '{base}' as one layer with '{experts.path}'. Such a model "
                    "is not understood."
                )
                raise ModelError(message)

    def _routed(self, experts: Experts) -> Iterator[Linear]:
        """Yield every projection of every expert of one layer."""
        whole = _whole_of([self._names.leaf(experts, one) for one in experts.projections])
        found = [self._sources(experts, one) for one in experts.projections]
        self._refuse_others_among(experts, found[0][0][0])
        for projection, (_, sources) in zip(experts.projections, found, strict=True):
            self._idle += _idle_pieces(experts, projection, sources)
        for expert in range(experts.num_experts):
            for projection, (names, sources) in zip(experts.projections, found, strict=True):
                name, parameter = names[expert], projection.parameter
                parent, _, leaf = name.rpartition(".")
                yield Linear(
                    name=name,
                    source=sources[expert],
                    parameter=projection.within(experts.path, expert, experts.shapes[parameter]),
                    shape=experts.size_of(projection),
                    weight_quantizer=f"{experts.path}.{parameter}_weight_quantizers.{expert}",
                    input_quantizer=f"{experts.path}.{parameter}_input_quantizer",
                    group=f"{parent}.{whole.get(leaf, leaf)}",
                    experts=experts.path,
                    expert=expert,
                )

    def _sources(
        self, experts: Experts, projection: Projection
    ) -> tuple[Sequence[str], Sequence[Slice]]:
        """Return the names of a projection of all experts, and where its weights lie."""
        names = self._names.of_experts(experts, projection)
        own = [self._own(name) for name in names]
        if any(own):
            if missing := [f"{n}.weight" for n, s in zip(names, own, strict=True) if s is None]:
                raise self._lacking_tensors(missing)
            return names, [one for one in own if one is not None]
        parameter = f"{experts.path}.{projection.parameter}"
        arrived = self._arrived.get(parameter)
        if arrived is None:
            raise self._lacking([parameter])
        if arrived.coordinates is None:
            shape = experts.shapes[projection.parameter]
            places = (projection.within(experts.path, e, shape) for e in range(shape[0]))
            return names, [replace(place, tensor=arrived.tensors[0]) for place in places]
        values = arrived.coordinates
        if projection.is_transposed:
            values = values.mT
        rows, step = projection.rows_of(values.shape[1])
        blocks = values if rows is None else values[:, slice(*rows, step)]
        found = read_blocks(arrived, blocks, self._shapes)
        if found is None:
            raise not_slices(parameter, arrived)
        return _named(names, found), found

    def _own(self, name: str) -> Slice | None:
        """Return the tensor of a layer's own name, as exported checkpoints have it."""
        tensor = f"{name}.weight"
        if tensor not in self._strange:
            return None
        del self._strange[tensor]
        return Slice(tensor=tensor)

    def _others(self, covered: set[str]) -> tuple[dict[str, str], list[Piece]]:
        """Return the tensors of parameters and stored buffers that no linear layer covers."""
        tied: dict[int, list[str]] = defaultdict(list)
        for name, value in self._state.items():
            tied[id(value)].append(name)
        others: dict[str, str] = {}
        pieces: list[Piece] = []
        missing: list[str] = []
        for name, value in self._state.items():
            if name in covered:
                continue
            stored = next((n for n in (name, *tied[id(value)]) if n in self._arrived), None)
            if stored is None:
                missing.append(name)
                continue
            arrived = self._arrived[stored]
            self._refuse_packed(value, arrived)
            if arrived.coordinates is None:
                others[name] = arrived.tensors[0]
            else:
                pieces += read_pieces(name, arrived, self._shapes)
        if missing:
            raise self._lacking(missing)
        return others, pieces

    def _refuse_packed(self, value: Tensor, arrived: Arrived) -> None:
        """Refuse codes where the model has plain numbers."""
        header = self._source.tensors[arrived.tensors[0]]
        if value.is_floating_point() and header.dtype not in _FLOATS:
            message = (
                f"'{arrived.tensors[0]}' is stored as {header.dtype}, but it is no layer that is "
                f"quantized: '{self._source.name}' is quantized in a way that is not understood."
            )
            raise ModelError(message)

    def _lacking(self, parameters: Sequence[str]) -> ModelError:
        sizes = {name: (*self._state[name].shape, 1)[0] for name in parameters}
        every = (self._names.tensors(name, size) for name, size in sizes.items())
        return self._lacking_tensors([tensor for tensors in every for tensor in tensors])

    def _lacking_tensors(self, tensors: Sequence[str]) -> ModelError:
        message = (
            f"'{self._source.name}' lacks {len(tensors)} tensor(s) that its config.json asks for, "
            f"such as '{tensors[0]}'. Download the model again, or correct config.json."
        )
        return ModelError(message)

    def _check_shapes(self, linears: Sequence[Linear], others: Mapping[str, str]) -> None:
        """Refuse tensors that have another shape than their place in the model."""
        wanted = {tensor: tuple(self._state[name].shape) for name, tensor in others.items()}
        for linear in linears:
            whole = Slice(tensor=linear.source.tensor)
            if linear.source == whole:
                wanted[whole.tensor] = linear.shape
            elif linear.source == replace(linear.parameter, tensor=whole.tensor):
                wanted[whole.tensor] = tuple(self._state[linear.parameter.tensor].shape)
        for tensor, shape in wanted.items():
            header = self._source.tensors[tensor]
            # A packed weight has fewer columns, never other rows.
            num_dims = len(shape) if header.dtype in _FLOATS else 1
            if header.shape[:num_dims] != shape[:num_dims]:
                message = (
                    f"'{tensor}' has the shape {list(header.shape)}, but config.json asks for "
                    f"{list(shape)}. Correct config.json, or download the model again."
                )
                raise ModelError(message)

    def _left_out(self, linears: Sequence[Linear]) -> Sequence[str]:
        """Return the tensors that the running model has no place for and that are copied.

        Raises:
            ModelError: transformers does not say of one that it may be left out.
        """
        layers = {linear.name for linear in linears}
        alone = [name for name in self._scales if name.rpartition(".")[0] not in layers]
        known = [
            re.compile(pattern)
            for module in self._skeleton.modules()
            for pattern in getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
        ]
        left_out = [*self._strange, *alone]
        strange = [n for n in left_out if not any(pattern.search(n) for pattern in known)]
        if strange:
            message = (
                f"'{self._source.name}' has {len(strange)} tensor(s) that its model has no place "
                f"for, such as '{strange[0]}'. Understood are the parameters of "
                f"{type(self._skeleton).__name__}, and what transformers says it leaves out."
            )
            raise ModelError(message)
        return left_out


def _refuse_other_quantizers(source: Source) -> None:
    """Refuse checkpoints whose packing is not the one that harness writes."""
    quantization = source.config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if quantization is not None and method != "modelopt" and not source.packed:
        message = (
            f"'{source.name}' is quantized already, by '{method}'. Give the unquantized model, or "
            "a checkpoint in the layout of Model-Optimizer."
        )
        raise ModelError(message)


def _idle_pieces(
    experts: Experts, projection: Projection, sources: Sequence[Slice]
) -> Iterator[Piece]:
    """Yield the matrices of experts that pass their input on."""
    shape = experts.shapes[projection.parameter]
    for expert in range(experts.num_experts, shape[0]):
        place = projection.within(experts.path, expert, shape)
        yield Piece(source=sources[expert], parameter=place)


def _named(names: Sequence[str], sources: Sequence[Slice]) -> Sequence[str]:
    """Return the names of experts' layers: their tensors' own, where each has one."""
    if any(source.expert is not None for source in sources):
        return names
    tensors = [source.tensor.removesuffix(".weight") for source in sources]
    return tensors if len(set(tensors)) == len(tensors) else names


def _whole_of(leaves: Sequence[str]) -> Mapping[str, str]:
    """Return, by the name of a projection, the name of what engines fuse it into."""
    return {leaf: whole for leaf in leaves if (whole := fused_of(leaf, leaves)) is not None}


def _grouped(linears: Sequence[Linear]) -> tuple[Linear, ...]:
    """Give the plain layers that engines fuse one group."""
    siblings: dict[str, set[str]] = defaultdict(set)
    for linear in linears:
        if not linear.is_routed:
            parent, _, leaf = linear.name.rpartition(".")
            siblings[parent].add(leaf)
    found = []
    for linear in linears:
        parent, dot, leaf = linear.name.rpartition(".")
        whole = None if linear.is_routed else fused_of(leaf, siblings[parent])
        group = f"{parent}{dot}{whole}" if whole else linear.group or linear.name
        found.append(replace(linear, group=group))
    return tuple(found)


def _attentions(linears: Sequence[Linear]) -> tuple[Attention, ...]:
    """Return the layers that keep keys and values: those that project both."""
    names = {linear.parameter.tensor.removesuffix(".weight") for linear in linears}
    return tuple(
        Attention(name=path)
        for linear in linears
        if (path := linear.parameter.tensor.removesuffix(".k_proj.weight"))
        and f"{path}.k_proj" in names
        and f"{path}.v_proj" in names
    )
