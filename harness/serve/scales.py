"""The scales of a quantized checkpoint: every one must be there, and how an engine merges them.

vLLM runs several stored layers as one and then has one scale where the files have several. It
takes the largest input scale (of q/k/v, of gate and up; of all routed experts of a layer), the
largest `weight_scale_2` of fused dense layers without touching their codes, the gate's
`weight_scale_2` for the up projection of a routed expert, and rounds fused FP8 weights again with
their largest `weight_scale`. Where the files agree, as they should, none of this changes a bit;
where they do not, the engine computes nonsense, and so does this one.

vLLM also starts happily without any scale: it leaves what was in memory, or 1. Here a scale that
is missing, zero, negative, infinite or NaN ends the run with its name.

Source: vLLM 0.25.0 to 0.33.0, model_executor/layers/quantization/modelopt.py,
`process_weights_after_loading` of each method; fused_moe/oracle/nvfp4.py, EMULATION.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import Inventory, Linear
from harness.errors import EngineError, ReasonCode
from harness.formats import Format, Scheme, has_input_scale, stored_format
from harness.models import Source, TensorReader
from harness.serve.computable import Computable

_PACKED = frozenset({"U8", "F8_E4M3"})


class Site(NamedTuple):
    """Where an input enters a linear function of the running model."""

    parameter: str
    expert: int | None


class Quantized(NamedTuple):
    """A layer that an engine loads as quantized."""

    linear: Linear
    scheme: Scheme

    @property
    def name(self) -> str:
        """Return its name in the files."""
        return self.linear.name

    @property
    def format(self) -> Format:
        """Return that of its weight."""
        return stored_format(self.scheme.weight_format, is_routed=self.linear.is_routed)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Return the names of all its tensors."""
        return self.format.required_suffixes(has_input_scale(self.scheme.input_format))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """The merged scales that an engine computes with; float32 scalars."""

    weights: Mapping[str, Tensor]
    """The last factor of a weight, by Linear.name: `weight_scale_2`, or FP8's `weight_scale`. Of
    formats whose fused layers keep their own there is none."""
    inputs: Mapping[Site, Tensor]
    """By the place where the input enters; none where the scale is taken from each input."""
    input_formats: Mapping[Site, str]
    """Of every input that is rounded, in the same way."""


def quantized_linears(
    source: Source, inventory: Inventory, declared: Computable
) -> tuple[Quantized, ...]:
    """Return the layers that an engine loads as quantized.

    Raises:
        EngineError: the configuration and the tensors disagree, or say two things of layers that
            an engine fuses.
    """
    schemes = declared.schemes(inventory.linears)
    wrong: list[Linear] = []
    parts_of_group: dict[str, set[str]] = {}
    for linear in inventory.linears:
        is_packed = source.tensors[linear.source.tensor].dtype in _PACKED
        if is_packed != (linear.name in schemes):
            wrong.append(linear)
        found = schemes.get(linear.name)
        parts_of_group.setdefault(linear.group, set()).add(found.name if found else "unquantized")
    if wrong:
        first = wrong[0]
        message = (
            f"{len(wrong)} of {len(inventory.linears)} layers are stored otherwise than the "
            f"configuration declares, first '{first.name}', stored as "
            f"{source.tensors[first.source.tensor].dtype} and "
            f"{'quantized' if first.name in schemes else 'unquantized'} by declaration. "
            "Export the checkpoint again."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    if mixed := {group: parts for group, parts in parts_of_group.items() if len(parts) > 1}:
        group, parts = next(iter(mixed.items()))
        message = (
            f"the parts of '{group}', which engines run as one layer, are "
            f"{' and '.join(sorted(parts))} ({len(mixed)} such layers). Quantize all of it alike, "
            "or none."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    return tuple(Quantized(x, schemes[x.name]) for x in inventory.linears if x.name in schemes)


def read_scales(source: Source, layers: Iterable[Quantized]) -> Scales:
    """Read and merge the scales of the quantized layers.

    Raises:
        EngineError: a scale is missing, zero, negative, infinite or NaN; or merging gave an expert
            the scale of another.
    """
    layers = tuple(layers)
    _refuse_missing(source, layers)
    merged = [one for one in layers if one.format.one_scale is not None]
    scaled = [one for one in layers if has_input_scale(one.scheme.input_format)]
    with TensorReader(source) as reader:
        own = _read(reader, {one.name: one.format.one_scale or "" for one in merged})
        inputs = _read(reader, {one.name: "input_scale" for one in scaled})
    weights = _merge_weights(merged, own)
    _refuse_foreign(merged, weights, own)
    return Scales(
        weights=weights,
        inputs=_merge_inputs(scaled, inputs),
        input_formats={_site_of(x): x.scheme.input_format for x in layers if x.scheme.input_format},
    )


def read_kv_scales(
    source: Source, inventory: Inventory, declared: Computable
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return the scales of keys and values by attention module; empty where they are not rounded.

    A checkpoint without any is one whose KV scale is 1 by its format (a cast), unless the
    manifest of our own exporter says that they were calibrated.

    Raises:
        EngineError: some are there and some are missing, or one is no scale.
    """
    if declared.kv is None:
        return {}
    names = {
        attention.name: (f"{attention.name}.k_proj.k_scale", f"{attention.name}.v_proj.v_scale")
        for attention in inventory.attentions
    }
    wanted = [name for pair in names.values() for name in pair]
    missing = [name for name in wanted if name not in source.tensors]
    if missing == wanted and not declared.kv_calibrated:
        one = torch.tensor(1.0)
        return dict.fromkeys(names, (one, one))
    if missing:
        raise _missing_error([_count("KV scale", missing, len(wanted))])
    with TensorReader(source) as reader:
        scales = {name: reader.tensor(name).float().reshape(()) for name in wanted}
    _refuse_broken(scales)
    return {module: (scales[k], scales[v]) for module, (k, v) in names.items()}


def _refuse_missing(source: Source, layers: tuple[Quantized, ...]) -> None:
    wanted: dict[str, list[str]] = {}
    for layer in sorted(layers, key=lambda one: not one.linear.is_routed):
        for suffix in layer.suffixes:
            kind = f"{'expert' if layer.linear.is_routed else 'dense'} {suffix}"
            wanted.setdefault(kind, []).append(f"{layer.name}.{suffix}")
    findings = [
        _count(kind, missing, len(names))
        for kind, names in wanted.items()
        if (missing := [name for name in names if name not in source.tensors])
    ]
    if findings:
        raise _missing_error(findings)


def _refuse_foreign(
    layers: Iterable[Quantized], merged: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    """Hold what experts compute with against the files, as the plugin does in a vLLM."""
    routed = [one for one in layers if one.linear.is_routed]
    theirs = {
        group: {float(own[member.name]) for member in members}
        for group, members in _grouped(routed, lambda one: one.linear.group).items()
    }
    foreign = [n.name for n in routed if float(merged[n.name]) not in theirs[n.linear.group]]
    if foreign:
        message = (
            f"{len(foreign)} of {len(routed)} scales of experts are not those that this engine "
            f"computes with, first '{foreign[0]}'. Report it with this line."
        )
        raise EngineError(message, reason=ReasonCode.SCALE_MISMATCH)


def _count(what: str, missing: list[str], total: int) -> str:
    return f"{len(missing)} of {total} {what} tensors are missing, first: '{missing[0]}'"


def _missing_error(findings: list[str]) -> EngineError:
    message = f"{'; '.join(findings)}. Calibrate and export the checkpoint again."
    return EngineError(message, reason=ReasonCode.SCALE_MISSING)


def _read(reader: TensorReader, suffixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Return one scale of each layer, by the layer's name.

    Args:
        reader: of the checkpoint.
        suffixes: the last part of the scale's name, by the layer's.
    """
    names = {layer: f"{layer}.{suffix}" for layer, suffix in suffixes.items()}
    stored = {name: reader.tensor(name) for name in names.values()}
    if many := [name for name, scale in stored.items() if scale.numel() != 1]:
        message = (
            f"'{many[0]}' has the shape {list(stored[many[0]].shape)} where the declared format "
            f"has one number ({len(many)} such scales). Export the checkpoint again."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    scales = {name: scale.float().reshape(()) for name, scale in stored.items()}
    _refuse_broken(scales)
    return {layer: scales[name] for layer, name in names.items()}


def _refuse_broken(scales: Mapping[str, Tensor]) -> None:
    broken = [name for name, scale in scales.items() if not (scale.isfinite() and scale > 0)]
    if broken:
        message = (
            f"{len(broken)} of {len(scales)} scales are not positive and finite, first: "
            f"'{broken[0]}' is {float(scales[broken[0]]):g}. Calibrate and export again."
        )
        raise EngineError(message, reason=ReasonCode.SCALE_MISSING)


def _merge_weights(layers: Iterable[Quantized], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for members in _grouped(layers, lambda one: one.linear.group).values():
        first = min(members, key=lambda one: one.linear.parameter.rows or (0, 0))
        takes_gate = first.format.shares_group_scale and first.linear.is_routed
        scale = own[first.name] if takes_gate else _largest(own[m.name] for m in members)
        merged.update({member.name: scale for member in members})
    return merged


def _merge_inputs(layers: Iterable[Quantized], own: Mapping[str, Tensor]) -> dict[Site, Tensor]:
    merged: dict[Site, Tensor] = {}
    for members in _grouped(layers, _shares_input).values():
        scale = _largest(own[one.name] for one in members)
        merged.update({_site_of(one): scale for one in members})
    return merged


def _site_of(one: Quantized) -> Site:
    return Site(one.linear.parameter.tensor, one.linear.parameter.expert)


def _shares_input(one: Quantized) -> str:
    return one.linear.parameter.tensor if one.linear.is_routed else one.linear.group


def _grouped(
    layers: Iterable[Quantized], key: Callable[[Quantized], str]
) -> Mapping[str, list[Quantized]]:
    groups: dict[str, list[Quantized]] = {}
    for one in layers:
        groups.setdefault(key(one), []).append(one)
    return groups


def _largest(scales: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(scales)).amax()
