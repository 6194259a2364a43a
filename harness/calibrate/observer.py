"""Collects what calibration sees: largest inputs, keys and values, and calls of each expert.

Only running maxima are kept, as tensors on the model's device in the model's type, so that seeing
an input never waits for the device. Inputs of layers that will not be quantized are not measured;
calls of experts are counted all the same, for they are the proof that experts were seen. Experts
that run in one grouped product are counted by where each one's rows end: that there was a product
with this parameter, and how many rows it multiplied with each expert's matrix.

Shapes: N rows (tokens), I input features, E experts.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.algorithms import Headroom
from harness.artifacts import (
    Algorithm,
    ExpertCoverage,
    InputRanges,
    Inventory,
    KvFormat,
    QuantPlan,
)
from harness.calibrate.moments import MomentCollector
from harness.errors import ReasonCode, RejectedError
from harness.formats import has_input_scale
from harness.models import answering
from harness.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MAX_NAMES = 3


class Observer:
    """Takes what `tap_linears` and `tap_attention` show."""

    def __init__(self, inventory: Inventory, plan: QuantPlan) -> None:
        self._quantizers = {
            planned.linear.parameter.tensor: planned.linear.input_quantizer
            for planned in plan.quantized
            if has_input_scale(planned.input_format)
        }
        self.moments = MomentCollector(plan)
        self._sums_up = not plan.algorithm.follows_quantized
        """Whether moments are those of the unquantized model's inputs."""
        self._headroom = {
            planned.linear.input_quantizer: Headroom()
            for planned in plan.quantized
            if plan.algorithm.inputs is InputRanges.ACT_HEADROOM
            and planned.input_format == Algorithm.FORMAT
        }
        self._attentions = {
            a.name: a for a in plan.attentions if KvFormat(plan.kv_cache).has_scales
        }
        self._amax: dict[str, Tensor] = {}
        self._experts: dict[str, str] = {}
        self._calls: dict[str, list[int]] = {}
        self._tokens: dict[str, list[int]] = {}
        self._grouped: dict[str, Tensor] = {}
        """Calls and tokens [2, E] of grouped products, where they were counted."""
        self._before: dict[str, tuple[list[int], list[int]]] = {}
        """Calls and tokens of all ranks, up to the last time that they were put together."""
        for linear in inventory.linears:
            if linear.experts is not None and linear.expert is not None:
                parameter = linear.parameter.tensor
                self._experts[parameter] = linear.experts
                for counts in (self._calls, self._tokens):
                    counts.setdefault(parameter, [])
                    counts[parameter] += [0] * (linear.expert + 1 - len(counts[parameter]))

    @property
    def needs_kv(self) -> bool:
        """Whether the plan has quantizers of keys and values."""
        return bool(self._attentions)

    def needs_logits(self, model: "PreTrainedModel") -> bool:
        """Whether the plan measures the input of the output layer."""
        head = answering(model).get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers
        names = {f"{name}.weight" for name, module in model.named_modules() if module is head}
        return not names.isdisjoint(self._quantizers)

    @property
    def is_complete(self) -> bool:
        """Whether every range that the plan needs has been seen."""
        return not self._unseen()

    def see_input(self, parameter: str, expert: int | None, input_NI: Tensor) -> None:
        """Take the input of one linear call."""
        if expert is not None and parameter in self._experts:
            self._calls[parameter][expert] += 1
            self._tokens[parameter][expert] += input_NI.numel() // input_NI.shape[-1]
        if (quantizer := self._quantizers.get(parameter)) is not None:
            self._widen(quantizer, input_NI)
        if self._sums_up:
            self.moments.see_input(parameter, expert, input_NI)

    def see_grouped(self, parameter: str, ends_E: Tensor, input_NI: Tensor) -> None:
        """Take the inputs of all experts of one grouped product; `ends_E` is where theirs end."""
        if parameter in self._experts:
            tokens_E = torch.diff(ends_E, prepend=ends_E.new_zeros(1)).long()
            found_2E = torch.stack([(tokens_E > 0).long(), tokens_E])
            before = self._grouped.get(parameter)
            self._grouped[parameter] = found_2E if before is None else before + found_2E
        if (quantizer := self._quantizers.get(parameter)) is not None:
            self._widen(quantizer, input_NI)
        if self._sums_up:
            self.moments.see_grouped(parameter, ends_E, input_NI)

    def see_kv(self, attention: str, key: Tensor, value: Tensor) -> None:
        """Take the keys and values of one attention call."""
        if (tapped := self._attentions.get(attention)) is not None:
            self._widen(tapped.k_quantizer, key)
            self._widen(tapped.v_quantizer, value)

    def coverage(self) -> tuple[ExpertCoverage, ...]:
        """Return the calls of every expert.

        Raises:
            RejectedError: in some layer no expert was seen at all.
        """
        found = self.counts()
        unseen = sorted({one.experts for one in found if not any(one.calls)})
        if unseen:
            num_layers = len(set(self._experts.values()))
            message = (
                f"no expert was observed in {len(unseen)} of {num_layers} layers "
                f"({_some(unseen)}): expert linear calls: 0. The experts ran through a fused "
                "kernel instead of per-expert linear calls, so their inputs have no scale. "
                "Type --experts eager; if you did, report the model and the version of "
                "transformers: eager experts did not take hold."
            )
            raise RejectedError(message, reason=ReasonCode.NO_EXPERT_OBSERVED)
        return found

    def counts(self) -> tuple[ExpertCoverage, ...]:
        """Return what was counted so far, whatever it is."""
        found = []
        for parameter, experts in self._experts.items():
            calls, tokens = self._counted(parameter)
            if parameter in self._before:
                calls, tokens = _sums(self._before[parameter], (calls, tokens))
            found.append(
                ExpertCoverage(
                    experts=experts,
                    projection=parameter.rpartition(".")[2],
                    calls=tuple(calls),
                    tokens=tuple(tokens),
                )
            )
        return tuple(found)

    def merge_ranks(self, ranks: Ranks) -> None:
        """Let each rank have seen what all of them saw; every one calls it at the same time."""
        if ranks.count == 1:
            return
        names = sorted(self._wanted())
        # Of a range with NaN nothing can be made, as little as of an infinite one.
        seen = {
            name: float(value.nan_to_num(nan=math.inf, posinf=math.inf))
            for name, value in self._amax.items()
        }
        own = [seen.get(name, -1.0) for name in names]
        device = next((value.device for value in self._amax.values()), None)
        self._amax = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in zip(names, ranks.all_max(own), strict=True)
            if value >= 0
        }
        for name in sorted(self._headroom):
            self._headroom[name].merge(ranks)
        for parameter in self._experts:
            calls, tokens = self._counted(parameter)
            added = ranks.all_sum([*calls, *tokens])
            both = added[: len(calls)], added[len(calls) :]
            before = self._before.get(parameter)
            self._before[parameter] = both if before is None else _sums(before, both)
            self._calls[parameter], self._tokens[parameter] = [0] * len(calls), [0] * len(calls)
        self._grouped.clear()

    def _counted(self, parameter: str) -> tuple[list[int], list[int]]:
        """Return the calls and tokens of each expert that this process counted."""
        own = self._calls[parameter], self._tokens[parameter]
        grouped = self._grouped.get(parameter)
        return own if grouped is None else _sums(own, grouped.tolist())

    def largest(self, quantizers: Iterable[str]) -> dict[str, float]:
        """Return the largest values that some quantizers have seen so far, whatever they are."""
        found = {name: float(self._amax[name]) for name in quantizers if name in self._amax}
        known = self._headroom.keys() & found.keys()
        return found | {name: self._headroom[name].amax(found[name]) for name in known}

    def input_amax(self) -> dict[str, float]:
        """Return the largest absolute value that each quantizer of the plan saw.

        Raises:
            RejectedError: one saw nothing, or only zeros, or NaN or infinity.
        """
        if unseen := self._unseen():
            message = (
                f"{len(unseen)} input quantizer(s) saw no input in the calibration "
                f"({_some(unseen)}). Exclude these layers, or calibrate with data that reach them."
            )
            raise RejectedError(message, reason=ReasonCode.QUANTIZER_NOT_OBSERVED)
        amax = {quantizer: float(value) for quantizer, value in self._amax.items()}
        if unusable := [q for q, value in amax.items() if not (0 < value < math.inf)]:
            message = (
                f"{len(unusable)} input quantizer(s) saw only zeros, or NaN or infinity, of which "
                f"no scale can be made ({unusable[0]}: {amax[unusable[0]]}). "
                "Exclude these layers, or calibrate with other data."
            )
            raise RejectedError(message, reason=ReasonCode.UNUSABLE_RANGE)
        return amax | {name: one.amax(amax[name]) for name, one in self._headroom.items()}

    def _widen(self, quantizer: str, x: Tensor) -> None:
        """Widen a quantizer's range by `x`; NaN stays NaN."""
        if (headroom := self._headroom.get(quantizer)) is not None:
            headroom.see(x)
        low, high = torch.aminmax(x)
        largest = torch.maximum(-low, high)
        seen = self._amax.get(quantizer)
        self._amax[quantizer] = largest if seen is None else torch.maximum(seen, largest)

    def _wanted(self) -> set[str]:
        wanted = set(self._quantizers.values())
        for attention in self._attentions.values():
            wanted |= {attention.k_quantizer, attention.v_quantizer}
        return wanted

    def _unseen(self) -> list[str]:
        return sorted(self._wanted() - self._amax.keys())


def _sums(
    some: Sequence[Sequence[int]], more: Sequence[Sequence[int]]
) -> tuple[list[int], list[int]]:
    """Add calls to calls and tokens to tokens, expert by expert."""
    calls, tokens = (
        [a + b for a, b in zip(x, y, strict=True)] for x, y in zip(some, more, strict=True)
    )
    return calls, tokens


def _some(names: list[str]) -> str:
    """Return the first few names as text."""
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
