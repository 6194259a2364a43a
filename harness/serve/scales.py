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
from harness.formats import Format, get_format
from harness.models import Source, TensorReader
from harness.serve.computable import Computable

_PACKED = frozenset({"U8", "F8_E4M3"})


class Site(NamedTuple):
    """Where an input enters a linear function of the running model."""

    parameter: str
    expert: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """The merged scales that an engine computes with; float32 scalars."""

    weights: Mapping[str, Tensor]
    """The last factor of a weight, by Linear.name: `weight_scale_2`, or FP8's `weight_scale`."""
    inputs: Mapping[Site, Tensor]
    """By the place where the input enters; empty where inputs are not rounded."""


def quantized_linears(
    source: Source, inventory: Inventory, declared: Computable
) -> tuple[Linear, ...]:
    """Return the layers that an engine loads as quantized.

    Raises:
        EngineError: the configuration and the tensors disagree, or say two things of layers that
            an engine fuses.
    """
    chosen = declared.quantized(inventory.linears)
    wrong: list[str] = []
    parts_of_group: dict[str, set[bool]] = {}
    for linear in inventory.linears:
        is_packed = source.tensors[linear.source.tensor].dtype in _PACKED
        if is_packed != (linear.name in chosen):
            wrong.append(linear.name)
        parts_of_group.setdefault(linear.group, set()).add(linear.name in chosen)
    if wrong:
        first = source.tensors[next(iter(_of(inventory, wrong))).source.tensor].dtype
        message = (
            f"{len(wrong)} of {len(inventory.linears)} layers are stored otherwise than the "
            f"configuration declares, first '{wrong[0]}', stored as {first} and "
            f"{'quantized' if wrong[0] in chosen else 'unquantized'} by declaration. "
            "Export the checkpoint again."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    mixed = [group for group, parts in parts_of_group.items() if len(parts) > 1]
    if mixed:
        message = (
            f"only a part of '{mixed[0]}', which engines run as one layer, is quantized "
            f"({len(mixed)} such layers). Quantize all of it or none."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    return tuple(_of(inventory, chosen))


def read_scales(source: Source, linears: Iterable[Linear], declared: Computable) -> Scales:
    """Read and merge the scales of the quantized layers.

    Raises:
        EngineError: a scale is missing, zero, negative, infinite or NaN.
    """
    if declared.scheme is None:
        return Scales(weights={}, inputs={})
    layers = tuple(linears)
    with_input = declared.scheme.input_format is not None
    weight_format = get_format(declared.scheme.weight_format)
    _refuse_missing(source, layers, weight_format.required_suffixes(with_input))
    with TensorReader(source) as reader:
        own = _read(reader, layers, last_factor(weight_format))
        inputs = _read(reader, layers, "input_scale") if with_input else {}
    return Scales(
        weights=_merge_weights(layers, own, gate_wins=weight_format.shares_group_scale),
        inputs=_merge_inputs(layers, inputs) if with_input else {},
    )


def read_kv_scales(
    source: Source, inventory: Inventory, declared: Computable
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return the scales of keys and values by attention module; empty where KV is not FP8.

    A checkpoint without any is one whose KV scale is 1 by its format (`fp8_cast`), unless the
    manifest of our own exporter says that they were calibrated.

    Raises:
        EngineError: some are there and some are missing, or one is no scale.
    """
    if not declared.kv_fp8:
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


def last_factor(weight_format: Format) -> str:
    """Return the suffix of the one scalar that fused layers must share."""
    suffixes = weight_format.required_suffixes(with_input=False)
    return "weight_scale_2" if "weight_scale_2" in suffixes else "weight_scale"


def _of(inventory: Inventory, names: Iterable[str]) -> Iterable[Linear]:
    wanted = frozenset(names)
    return (linear for linear in inventory.linears if linear.name in wanted)


def _refuse_missing(source: Source, linears: tuple[Linear, ...], suffixes: tuple[str, ...]) -> None:
    findings: list[str] = []
    for kind, is_routed in (("expert", True), ("dense", False)):
        layers = [linear.name for linear in linears if linear.is_routed is is_routed]
        for suffix in suffixes:
            names = [f"{layer}.{suffix}" for layer in layers]
            missing = [name for name in names if name not in source.tensors]
            if missing:
                findings.append(_count(f"{kind} {suffix}", missing, len(names)))
    if findings:
        raise _missing_error(findings)


def _count(what: str, missing: list[str], total: int) -> str:
    return f"{len(missing)} of {total} {what} tensors are missing, first: '{missing[0]}'"


def _missing_error(findings: list[str]) -> EngineError:
    message = f"{'; '.join(findings)}. Calibrate and export the checkpoint again."
    return EngineError(message, reason=ReasonCode.SCALE_MISSING)


def _read(reader: TensorReader, linears: tuple[Linear, ...], suffix: str) -> dict[str, Tensor]:
    stored = {f"{x.name}.{suffix}": reader.tensor(f"{x.name}.{suffix}") for x in linears}
    if many := [name for name, scale in stored.items() if scale.numel() != 1]:
        message = (
            f"'{many[0]}' has the shape {list(stored[many[0]].shape)} where the declared format "
            f"has one number ({len(many)} such scales). Export the checkpoint again."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    scales = {name: scale.float().reshape(()) for name, scale in stored.items()}
    _refuse_broken(scales)
    return {linear.name: scales[f"{linear.name}.{suffix}"] for linear in linears}


def _refuse_broken(scales: Mapping[str, Tensor]) -> None:
    broken = [name for name, scale in scales.items() if not (scale.isfinite() and scale > 0)]
    if broken:
        message = (
            f"{len(broken)} of {len(scales)} scales are not positive and finite, first: "
            f"'{broken[0]}' is {float(scales[broken[0]]):g}. Calibrate and export again."
        )
        raise EngineError(message, reason=ReasonCode.SCALE_MISSING)


def _merge_weights(
    linears: tuple[Linear, ...], own: Mapping[str, Tensor], *, gate_wins: bool
) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for members in _grouped(linears, lambda linear: linear.group).values():
        first = min(members, key=lambda linear: linear.parameter.rows or (0, 0))
        takes_gate = gate_wins and first.is_routed
        scale = own[first.name] if takes_gate else _largest(own[m.name] for m in members)
        merged.update({member.name: scale for member in members})
    return merged


def _merge_inputs(linears: tuple[Linear, ...], own: Mapping[str, Tensor]) -> dict[Site, Tensor]:
    merged: dict[Site, Tensor] = {}
    fused = _grouped(linears, lambda x: x.parameter.tensor if x.is_routed else x.group)
    for members in fused.values():
        scale = _largest(own[member.name] for member in members)
        for member in members:
            merged[Site(member.parameter.tensor, member.parameter.expert)] = scale
    return merged


def _grouped(linears: Iterable[Linear], key: Callable[[Linear], str]) -> Mapping[str, list[Linear]]:
    groups: dict[str, list[Linear]] = {}
    for linear in linears:
        groups.setdefault(key(linear), []).append(linear)
    return groups


def _largest(scales: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(scales)).amax()
