"""Sums up what the inputs of one decoder layer are like: the second moments of each weight's.

Layers that an engine fuses read one input, which is summed up once. Experts have sums of their own,
of the tokens that were routed to them.

Shapes: N rows (tokens), I input features, E experts.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.algorithms import SecondMoments
from harness.artifacts import Algorithm, PlannedLinear, QuantPlan
from harness.calibrate.products import add_products
from harness.errors import ReasonCode, RejectedError
from harness.formats.nvfp4 import BLOCK

_LAYER = re.compile(r".*?\.\d+(?=\.)")


def bytes_of_moments(plan: QuantPlan) -> int:
    """Return the most that a plan's algorithm keeps of one decoder layer."""
    seen: set[tuple[str, int | None]] = set()
    by_layer: dict[str, int] = defaultdict(int)
    for planned in plan.quantized if plan.algorithm.needs_moments else ():
        linear = planned.linear
        one = linear.group, linear.parameter.expert
        if planned.weight_format == Algorithm.FORMAT and one not in seen:
            seen.add(one)
            width = linear.shape[1]
            each = width if plan.algorithm.needs_whole_inputs else BLOCK
            each *= 2 if plan.algorithm.follows_quantized else 1
            layer = _LAYER.match(linear.parameter.tensor)
            by_layer[layer[0] if layer else ""] += 4 * width * each
    return max(by_layer.values(), default=0)


def most_turns(plan: QuantPlan) -> int:
    """Return how many inputs at most one decoder layer has whose moments are wanted."""
    names = set(_standing(plan).values())
    layers = Counter(found[0] for name in names if (found := _LAYER.match(name)))
    return max(layers.values(), default=0)


def _standing(plan: QuantPlan) -> Mapping[str, str]:
    """Return the parameter whose input is summed up, by group of fused layers."""
    found: dict[str, str] = {}
    for planned in plan.quantized if plan.algorithm.needs_moments else ():
        if planned.weight_format == Algorithm.FORMAT:
            found.setdefault(planned.linear.group, planned.linear.parameter.tensor)
    return found


class MomentCollector:
    """Takes the inputs of a decoder layer while it runs over all batches."""

    def __init__(self, plan: QuantPlan) -> None:
        """Take the plan; its algorithm says how much of the moments it needs."""
        self._block = None if plan.algorithm.needs_whole_inputs else BLOCK
        self._stands_for = _standing(plan)
        self._experts: dict[str, int] = {}
        """Number of experts of each such parameter; 0 for a matrix alone."""
        for planned in plan.quantized:
            linear = planned.linear
            if planned.weight_format == Algorithm.FORMAT and linear.group in self._stands_for:
                name = self._stands_for[linear.group]
                number = 0 if linear.parameter.expert is None else linear.parameter.expert + 1
                self._experts[name] = max(number, self._experts.get(name, 0))
        self._sums: dict[str, Tensor] = {}
        self._cross: dict[str, Tensor] = {}
        """Of the unquantized model's inputs with these."""
        self._tokens: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Forget the layer that was before."""
        self._sums.clear()
        self._cross.clear()
        self._tokens.clear()

    def shown_for(self, planned: PlannedLinear) -> str | None:
        """Return the parameter whose input is summed up for a layer; None if none is."""
        return self._stands_for.get(planned.linear.group)

    def wants(self, parameter: str) -> bool:
        """Tell whether a parameter's inputs are summed up."""
        return parameter in self._experts

    def see_input(
        self,
        parameter: str,
        expert: int | None,
        input_NI: Tensor,
        unquantized_NI: Tensor | None = None,
    ) -> None:
        """Add the input of one linear call, and what the unquantized model has in its place."""
        if parameter in self._experts:
            x = input_NI.reshape(-1, input_NI.shape[-1])
            # Filled on its device: to copy a number there would wait for a GPU.
            ends_1 = torch.full((1,), len(x), dtype=torch.int32, device=x.device)
            y = None if unquantized_NI is None else unquantized_NI.reshape(x.shape)
            self._add(parameter, expert or 0, ends_1, x, y)

    def see_grouped(
        self,
        parameter: str,
        ends_E: Tensor,
        input_NI: Tensor,
        unquantized_NI: Tensor | None = None,
    ) -> None:
        """Add the inputs of all experts of one grouped product; `ends_E` is where theirs end."""
        if number := self._experts.get(parameter):
            self._add(parameter, 0, ends_E[:number], input_NI, unquantized_NI)

    def of(self, members: Sequence[PlannedLinear]) -> SecondMoments:
        """Return the moments of the inputs of layers that share a parameter, in their order.

        Raises:
            RejectedError: none of them was seen. An expert without tokens is no error.
        """
        first = members[0].linear
        name = self._stands_for[first.group]
        if name not in self._sums:
            message = (
                f"calibration saw no input of '{first.name}', which the recipe's algorithm needs. "
                "Exclude the layer, or let the recipe have another algorithm."
            )
            raise RejectedError(message, reason=ReasonCode.QUANTIZER_NOT_OBSERVED)
        sums = self._sums[name]
        found = SecondMoments(sums, self._tokens[name], self._cross.get(name))
        if not bool(sums.isfinite().all()):
            message = (
                f"calibration saw inputs of '{first.name}' that are NaN or so large that their "
                "squares are infinite. Exclude the layer, or calibrate with other data."
            )
            raise RejectedError(message, reason=ReasonCode.UNUSABLE_RANGE)
        experts = [one.linear.parameter.expert or 0 for one in members]
        return found if experts == list(range(len(sums))) else found.part(experts)

    def _add(
        self,
        parameter: str,
        first: int,
        ends_E: Tensor,
        input_NI: Tensor,
        unquantized_NI: Tensor | None,
    ) -> None:
        """Add what experts from the `first` on saw."""
        if parameter not in self._sums:
            self._sums[parameter] = self._zeros(parameter, input_NI)
            number = len(self._sums[parameter])
            self._tokens[parameter] = ends_E.new_zeros(number, dtype=torch.int64)
        these = slice(first, first + len(ends_E))
        self._tokens[parameter][these] += torch.diff(ends_E, prepend=ends_E.new_zeros(1))
        add_products(self._sums[parameter][these], ends_E, input_NI)
        if unquantized_NI is not None:
            if parameter not in self._cross:
                self._cross[parameter] = self._zeros(parameter, input_NI)
            add_products(self._cross[parameter][these], ends_E, input_NI, unquantized_NI)

    def _zeros(self, parameter: str, input_NI: Tensor) -> Tensor:
        number, width = max(1, self._experts[parameter]), input_NI.shape[-1]
        block = self._block
        shape = (width, width) if block is None else (width // block, block, block)
        return torch.zeros(number, *shape, dtype=torch.float32, device=input_NI.device)
