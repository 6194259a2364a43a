"""Whether every expert's scale of the files reaches the kernel as its own.

A checkpoint has a scale for each expert and projection. An engine stacks them into one vector,
pads it, merges gate and up, or multiplies it with the scale of the inputs; a slip there gives one
expert's scale to all, and the model answers nonsense. So what the method of a layer ends up with,
once all weights are processed, is held against the files, expert by expert.

An expert has its own where the kernel's value is the file's, up to one factor for the whole layer:
some kernels fold a constant in, such as the one scale of the inputs. Where a value was merged, the
weight's codes must have been rounded again to make up for it: their magnitude times the scale is
then what it was before.

Source: `process_weights_after_loading` of vLLM's methods for modelopt, and `FusedMoEQuantConfig`,
in which they leave what the kernels multiply with.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.fused_moe import RoutedExperts

from .parts import expert_numbers
from .tape import Tape

_NAME = re.compile(r"\.(\d+)\.([^.]+)\.([^.]+)$")
"""Expert, projection and kind of a scale, at the end of its name in the files."""
_SIDES = ("w13", "w2")
_WEIGHT_KINDS = ("weight_scale_2", "weight_scale")
"""What an expert's whole matrix is multiplied with: of NVFP4, of FP8; the first that is one."""
_INPUT_KIND = "input_scale"
_FIRST = ("gate_proj", "w1")
_SAME = 1e-3
_SAME_MAGNITUDE = 0.05
"""Of the sum of a matrix's codes times its scale, before and after a second rounding."""
_EXAMPLES = 5
_CODES = (torch.float8_e4m3fn, torch.float8_e4m3fnuz)

Scalars = Mapping[int, Mapping[str, float]]
"""By expert, as the model counts them, and projection."""


class Side(NamedTuple):
    """One of the two products of a layer's experts, as the files have it."""

    layer: str
    side: str
    weights: Scalars
    inputs: Scalars
    magnitudes: Mapping[int, float]
    """Of a few experts by their place on this rank: the sum of all codes times their scales."""


@dataclass(slots=True)
class Reached:
    """How many scales reached the kernels, and how."""

    num: int = 0
    num_own: int = 0
    num_merged: int = 0
    """Share a value that is right for them: codes rounded again to it, or inputs' largest."""
    num_wrong: int = 0
    """Share a value, or have one, that is not theirs."""
    examples: list[str] = field(default_factory=list)
    """Of the wrong ones."""

    def add(self, side: Side, kind: str, own: int, merged: int, wrong: Sequence[str]) -> None:
        """Count one side of one layer."""
        self.num += own + merged + len(wrong)
        self.num_own += own
        self.num_merged += merged
        self.num_wrong += len(wrong)
        room = max(0, _EXAMPLES - len(self.examples))
        self.examples += [f"{side.layer}.{expert}.{side.side}_{kind}" for expert in wrong[:room]]

    def told(self) -> dict[str, object]:
        """Return it as the report has it."""
        return {
            "num": self.num,
            "num_own": self.num_own,
            "num_merged": self.num_merged,
            "num_wrong": self.num_wrong,
            "examples": self.examples,
        }


def read_sides(model: nn.Module, tape: Tape, scalars: Mapping[str, float]) -> list[Side]:
    """Return what the files have for each layer with experts, before its weights are processed.

    Args:
        model: the model, just loaded.
        tape: of the load; says which tensors reached which layer.
        scalars: every tensor of one value that was read, by its name.
    """
    found = []
    for prefix, layer in model.named_modules():
        if isinstance(layer, RoutedExperts):
            name = prefix.removesuffix(".routed_experts")
            for side in _SIDES:
                kinds = {k: _of_layer(layer, f"{side}_{k}", tape, scalars) for k in _WEIGHT_KINDS}
                weights = next((s for s in kinds.values() if s), {})
                inputs = _of_layer(layer, f"{side}_{_INPUT_KIND}", tape, scalars)
                if weights or inputs:
                    sums = _magnitudes(layer, side, weights)
                    found.append(Side(name, side, weights, inputs, sums))
    return found


def reached(model: nn.Module, sides: Iterable[Side]) -> dict[str, dict[str, object]]:
    """Hold the files' scales against what the kernels have.

    Returns:
        `weights` and `inputs`: how many scales there are, reached as their own, were merged
        rightly, and are wrong. Empty where no expert has a scale of one value.

    Raises:
        LookupError: a method has put its scales where they are not known to be.
    """
    layers = {
        prefix.removesuffix(".routed_experts"): layer
        for prefix, layer in model.named_modules()
        if isinstance(layer, RoutedExperts)
    }
    weights, inputs = Reached(), Reached()
    for side in sides:
        layer = layers[side.layer]
        if side.weights:
            _hold_weights(side, layer, weights)
        if side.inputs:
            _hold_inputs(side, layer, inputs)
    both = {"weights": weights, "inputs": inputs}
    return {name: counted.told() for name, counted in both.items() if counted.num}


def _of_layer(
    layer: nn.Module, local: str, tape: Tape, scalars: Mapping[str, float]
) -> dict[int, dict[str, float]]:
    """Return the files' values that reached a parameter, by the expert that they are named for."""
    parameter = getattr(layer, local, None)
    found: dict[int, dict[str, float]] = {}
    if not isinstance(parameter, Tensor):
        return found
    names = set(chain.from_iterable(names for _, names in tape.writes(parameter).sourced))
    for name in names & scalars.keys():
        if match := _NAME.search(name):
            found.setdefault(int(match[1]), {})[match[2]] = scalars[name]
    return found


def _magnitudes(layer: Any, side: str, weights: Scalars) -> dict[int, float]:
    """Return the sums of the experts with the smallest and the largest scale, where codes are FP8.

    They are those to which a shared scale does the most harm.
    """
    weight = getattr(layer, f"{side}_weight", None)
    if not weights or not isinstance(weight, Tensor) or weight.dtype not in _CODES:
        return {}
    place_of = {expert: place for place, expert in enumerate(expert_numbers(layer, len(weight)))}
    by_size = sorted(weights, key=lambda expert: max(weights[expert].values()))
    return {
        place_of[expert]: _magnitude(weight[place_of[expert]], weights[expert])
        for expert in {by_size[0], by_size[-1]}
        if expert in place_of
    }


def _magnitude(codes: Tensor, scales: Mapping[str, float]) -> float:
    """Return the sum of |codes| times their scales; gate lies before up."""
    ordered = [scales[name] for name in sorted(scales, key=lambda name: name not in _FIRST)]
    halves = codes.chunk(len(ordered), dim=0)
    sums = [float(half.float().abs().sum()) for half in halves]
    return sum(total * scale for total, scale in zip(sums, ordered, strict=True))


def _hold_weights(side: Side, layer: Any, counted: Reached) -> None:
    experts, places = _here(side.weights, layer), [*_places(layer, side.weights)]
    largest = torch.tensor([max(side.weights[e].values()) for e in experts])
    firsts = torch.tensor([_first(side.weights[e]) for e in experts])
    merged, wrong = (torch.zeros(len(experts), dtype=torch.bool) for _ in range(2))
    for forms in _weight_vectors(side.side, layer):
        # The way of folding and merging that explains most is the kernel's.
        held = [(_is_proportional(v[places], f), v) for v in forms for f in (largest, firsts)]
        is_own, vector = max(held, key=lambda one: int(one[0].sum()))
        is_right = is_own.all() or _makes_up(side, layer, vector)
        merged, wrong = (merged | ~is_own, wrong) if is_right else (merged, wrong | ~is_own)
    if not wrong.any() and not _halves_agree(side, layer):
        wrong = torch.tensor([len(set(side.weights[e].values())) > 1 for e in experts])
    merged &= ~wrong
    lost = [str(e) for e, is_lost in zip(experts, wrong.tolist(), strict=True) if is_lost]
    num_merged = int(merged.sum())
    own = len(experts) - len(lost) - num_merged
    counted.add(side, "weight_scale", own, num_merged, lost)


def _hold_inputs(side: Side, layer: Any, counted: Reached) -> None:
    config = _config(layer)
    number = side.side.replace("w13", "1").replace("w2", "2")
    scale, inverse = (getattr(config, f"a{number}_{kind}", None) for kind in ("scale", "gscale"))
    if inverse is not None:
        scale = 1 / inverse
    if not isinstance(scale, Tensor):
        return  # taken from each input, or inputs are left alone
    experts = _here(side.inputs, layer)
    theirs = torch.tensor([max(side.inputs[e].values()) for e in experts])
    vector = _by_place(scale, layer)
    if vector is None:
        message = f"its input scale has the shape {list(scale.shape)}"
        raise LookupError(message)
    ratio = vector[[*_places(layer, side.inputs)]] / theirs
    own, larger = (ratio - 1).abs() < _SAME, ratio >= 1 + _SAME
    wrong = [e for e, fine in zip(experts, (own | larger).tolist(), strict=True) if not fine]
    counted.add(side, _INPUT_KIND, int(own.sum()), int(larger.sum()), [*map(str, wrong)])


def _is_proportional(vector: Tensor, theirs: Tensor) -> Tensor:
    ratio = vector / theirs
    return (ratio / ratio.median() - 1).abs() < _SAME


def _makes_up(side: Side, layer: Any, vector: Tensor) -> bool:
    """Return whether codes were rounded again for a merged scale: all changed by one factor."""
    found = [
        _sum_of_codes(side, layer, p) * float(vector[p]) / b for p, b in side.magnitudes.items()
    ]
    return len(found) > 1 and max(found) < min(found) * (1 + _SAME_MAGNITUDE)


def _halves_agree(side: Side, layer: Any) -> bool:
    """Return whether gate and up are as large under their one scale as under their own two.

    True too where the kernel keeps its codes otherwise than as FP8, so that they cannot be added.
    """
    scale = _config_scale(side.side, layer)
    vector = None if scale is None else _by_place(scale, layer)
    if vector is None or not _has_codes(side, layer):
        return True
    ratios = [
        _sum_of_codes(side, layer, place) * float(vector[place]) / before
        for place, before in side.magnitudes.items()
    ]
    return all(abs(ratio - 1) < _SAME_MAGNITUDE for ratio in ratios)


def _has_codes(side: Side, layer: Any) -> bool:
    weight = getattr(layer, f"{side.side}_weight", None)
    return isinstance(weight, Tensor) and weight.dtype in _CODES


def _sum_of_codes(side: Side, layer: Any, place: int) -> float:
    """Return the sum of an expert's |codes| as the kernel has them; NaN where they are not FP8."""
    if not _has_codes(side, layer):
        return float("nan")
    return float(getattr(layer, f"{side.side}_weight")[place].float().abs().sum())


def _weight_vectors(side: str, layer: Any) -> Iterator[list[Tensor]]:
    """Yield each vector that the kernel multiplies with, in the forms that it may have."""
    number = side.replace("w13", "1").replace("w2", "2")
    config = _config(layer)
    kernel = getattr(layer.quant_method, "moe_kernel", None)
    experts = getattr(kernel, "fused_experts", None)
    inputs = _divisors(config, number, layer)
    seen = 0
    is_whole = getattr(config, f"g{number}_alphas", None) is None
    scale = _config_scale(side, layer) if is_whole else None
    held = [scale, getattr(config, f"g{number}_alphas", None)]
    held += [getattr(experts, f"_g{number}_alphas", None)]
    for tensor in held:
        vector = _by_place(tensor, layer) if isinstance(tensor, Tensor) else None
        if vector is not None:
            seen += 1
            yield [vector, *(vector / divisor for divisor in inputs)]
    if not seen:
        message = f"no scale of {side} by expert was found in {type(layer.quant_method).__name__}"
        raise LookupError(message)


def _divisors(config: Any, number: str, layer: Any) -> list[Tensor]:
    """Return the input scales that may be folded into a weight's."""
    scale, inverse = (getattr(config, f"a{number}_{kind}", None) for kind in ("scale", "gscale"))
    found = [scale] if isinstance(scale, Tensor) else []
    found += [1 / inverse] if isinstance(inverse, Tensor) else []
    vectors = [_by_place(tensor, layer) for tensor in found]
    return [vector for vector in vectors if vector is not None]


def _config(layer: Any) -> Any:
    method = layer.quant_method
    inner = getattr(method, "old_quant_method", method)
    config = getattr(method, "moe_quant_config", None) or getattr(inner, "moe_quant_config", None)
    if config is None:
        message = f"{type(method).__name__} has no moe_quant_config"
        raise LookupError(message)
    return config


def _config_scale(side: str, layer: Any) -> Tensor | None:
    name = side.replace("w13", "w1")
    scale: Tensor | None = getattr(_config(layer), f"{name}_scale", None)
    return scale


def _by_place(tensor: Tensor, layer: Any) -> Tensor | None:
    """Return one value for each expert of this rank; None where it is no such vector.

    A scale of all experts is repeated; more than one value an expert must be one value.
    """
    num = int(layer.local_num_experts)
    values = tensor.detach().float().cpu()
    if values.numel() == 1:
        return values.reshape(1).expand(num)
    if values.ndim == 0 or values.shape[0] < num:
        return None
    rows = values[:num].reshape(num, -1)
    return rows[:, 0] if torch.equal(rows.amin(1), rows.amax(1)) else None


def _here(scalars: Scalars, layer: Any) -> list[int]:
    """Return the experts of this rank that the files have a scale for."""
    held = set(expert_numbers(layer, int(layer.local_num_experts)))
    return sorted(scalars.keys() & held)


def _places(layer: Any, scalars: Scalars) -> Iterator[int]:
    """Yield where this rank has those experts, in the order of `_here`."""
    numbers = expert_numbers(layer, int(layer.local_num_experts))
    place_of = {expert: place for place, expert in enumerate(numbers)}
    return (place_of[expert] for expert in _here(scalars, layer))


def _first(scales: Mapping[str, float]) -> float:
    return next((scales[name] for name in _FIRST if name in scales), next(iter(scales.values())))
