"""Smooth one decoder layer after another: find folds, choose factors, make and prove them.

A layer is smoothed before it runs over the batches, so all that is measured and quantized of it is
what it is afterwards. Each fold is proven with its own factors: the first batch must come out of
the layer with the same bits as before.

Shapes: N tokens, E experts, O output features, I input features.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from harness.algorithms import choose_exponents
from harness.artifacts import Algorithm, Inventory, Linear, QuantPlan, Slice
from harness.calibrate.folds import (
    Fold,
    Foldable,
    Part,
    Run,
    find_folds,
    fold_in,
    fold_in_if_same,
)
from harness.errors import RecipeError
from harness.models import ResidentLayer, Source, by_parameter, stored_dtype_name, tap_linears

_log = logging.getLogger("harness.calibrate")
_TOKENS = 512
"""Whose inputs decide."""
_FEWEST = 32
"""Of an expert, which is left as it is if it got fewer."""
_EXPERTS = 4
"""Whose weights decide, of all that read one norm."""
_ROWS = 4096
"""Of the weights that decide."""
_MATRIX = 2

_Kind = tuple[object, ...]
"""What layers of one structure have in common."""


class _Chosen(NamedTuple):
    fold: Fold
    exponent: Tensor


class Smoother:
    """Smooths layers of one model; each only once chosen, however often it comes."""

    def __init__(self, source: Source, inventory: Inventory, plan: QuantPlan) -> None:
        """Take what is quantized; nothing is looked at."""
        self._source, self._inventory, self._plan = source, inventory, plan
        self._planned = by_parameter(plan.quantized)
        self._found: dict[_Kind, Sequence[Fold]] = {}
        self._chosen: dict[int, Sequence[_Chosen]] = {}
        self._stored: dict[str, Tensor] = {}

    def smooth(self, layer: ResidentLayer, run: Run) -> None:
        """Fold what evens out a layer's inputs; `run` runs it on the first batch."""
        foldable = self._foldable(layer)
        if layer.number in self._chosen:  # more samples, or smaller batches
            for fold, exponent in self._chosen[layer.number]:
                fold_in(foldable, fold, exponent)
            return
        kind = _kind(foldable)
        if kind not in self._found:
            folds = find_folds(foldable, run)
            self._found[kind] = [one for one in folds if self._is_told(layer, one)]
        chosen = list(self._chosen_of(foldable, run, self._found[kind]))
        self._chosen[layer.number] = chosen
        for fold, exponent in chosen:
            self._note(layer, fold, exponent.cpu())

    def folded(self) -> Mapping[str, tuple[int, ...]]:
        """Return what unquantized tensors of the source are multiplied with: powers of two.

        Raises:
            RecipeError: in no layer is there anything to fold.
        """
        if not any(self._found.values()):
            message = (
                f"the recipe's algorithm ({self._plan.algorithm}) folds factors into what stands "
                "before quantized layers, and nothing in this model takes them: norms multiply "
                "with 1 + w, or something other than layers reads what they make. Leave out the "
                "smoothing."
            )
            raise RecipeError(message)
        num_folds = sum(map(len, self._chosen.values()))
        _log.info(
            "calibrate: smoothed inputs of %d layers in %d places by powers of two, which what "
            "makes the inputs and what reads them take up",
            *(len(self._chosen), num_folds),
        )
        return {name: tuple(one.tolist()) for name, one in self._stored.items()}

    def _chosen_of(self, foldable: Foldable, run: Run, folds: Sequence[Fold]) -> Iterator[_Chosen]:
        """Choose factors, fold them and yield those that changed no bit of the output."""
        if not folds:
            return
        samples = _Samples({part.name for fold in folds for part in fold.readers})
        with tap_linears(foldable.layer.module, samples.see, samples.see_grouped):
            wanted = run()
        for fold in folds:
            exponent = self._exponents(foldable, fold, samples)
            if exponent.any() and fold_in_if_same(
                foldable, fold, exponent, lambda: torch.equal(run(), wanted)
            ):
                yield _Chosen(fold, exponent)

    def _exponents(self, foldable: Foldable, fold: Fold, samples: "_Samples") -> Tensor:
        """Return the best exponents, [I] or [E, I], for the quantized weights among the readers."""
        view = foldable.view(fold.giver)
        if view.ndim <= _MATRIX:
            return self._best(foldable, fold, samples.of_all(fold))
        each = [
            self._best(foldable, fold, samples.of(fold, expert), expert)
            for expert in range(len(view))
        ]
        return torch.stack(each)

    def _best(
        self, foldable: Foldable, fold: Fold, x_NI: Tensor, expert: int | None = None
    ) -> Tensor:
        rows: list[Tensor] = []
        rounds_inputs = False
        for part in fold.readers:
            planned = [
                one
                for one in self._planned.get(f"{foldable.layer.path}.{part.name}", ())
                if one.weight_format == Algorithm.FORMAT
            ]
            if planned:
                rounds_inputs |= any(one.input_format == Algorithm.FORMAT for one in planned)
                rows += _some(foldable.view(part), expert)
        width = foldable.num_features(fold.giver)
        if not rows or len(x_NI) < _FEWEST:
            device = foldable.view(fold.giver).device
            return torch.zeros(width, dtype=torch.int8, device=device)
        weight_OI = torch.cat(rows)
        step = -(-len(weight_OI) // _ROWS)
        return choose_exponents(x_NI, weight_OI[::step], rounds_inputs=rounds_inputs)

    def _note(self, layer: ResidentLayer, fold: Fold, exponent: Tensor) -> None:
        """Remember what becomes of tensors that are not quantized."""
        own = [(fold.giver, -exponent), *((part, exponent) for part in fold.readers)]
        for part, exponent_I in own:
            if tensor := self._whole.get(f"{layer.path}.{part.name}"):
                before = self._stored.get(tensor)  # of what reads features that two make
                self._stored[tensor] = exponent_I if before is None else before + exponent_I

    def _is_told(self, layer: ResidentLayer, fold: Fold) -> bool:
        """Return whether files tell of a fold: `harness verify` finds rows beside what reads them.

        That is quantized layers of one module, or of one expert.
        """
        if len(layer.module.get_parameter(fold.giver.name).shape) < _MATRIX:
            return True
        each = [f"{layer.path}.{part.name}" for part in (fold.giver, *fold.readers)]
        beside = [{one.name.rpartition(".")[0] for one in self._linears[name]} for name in each]
        return all(name in self._planned for name in each) and all(
            one == beside[0] for one in beside
        )

    def _foldable(self, layer: ResidentLayer) -> Foldable:
        """Return a layer with the parameters whose values in the checkpoint follow those in memory.

        Those are quantized from the layer in memory, or are whole tensors of the source.
        """
        givers: list[Part] = []
        readers, products = {}, set()
        for name, value in layer.module.named_parameters():
            parameter = f"{layer.path}.{name}"
            linears = self._linears.get(parameter, ())
            if linears:
                products.add(name)
            if parameter in self._whole:
                if value.ndim == 1:
                    givers.append(Part(name))
                elif value.ndim == _MATRIX:
                    readers[name] = Part(name)
            elif self._is_resident(parameter):
                givers += sorted({_part(name, one.parameter) for one in linears}, key=str)
                readers[name] = Part(name, is_transposed=linears[0].parameter.is_transposed)
        return Foldable(layer, givers, readers, frozenset(products))

    def _is_resident(self, parameter: str) -> bool:
        """Return whether all of a parameter is quantized, from where it is in memory.

        What is quantized together, as q, k and v are, is so only if all of it has the model's type.
        """
        planned, linears = self._planned.get(parameter, ()), self._linears.get(parameter, ())
        tensors = {name for one in planned for name in self._groups[one.linear.group]}
        exact = stored_dtype_name(self._source)
        return 0 < len(planned) == len(linears) and all(
            self._source.tensors[name].dtype == exact and name not in self._source.packed
            for name in tensors
        )

    @cached_property
    def _groups(self) -> Mapping[str, set[str]]:
        """Tensors of the source, by group."""
        found: dict[str, set[str]] = defaultdict(set)
        for one in self._plan.quantized:
            found[one.linear.group].add(one.linear.source.tensor)
        return found

    @cached_property
    def _linears(self) -> Mapping[str, Sequence[Linear]]:
        found: dict[str, list[Linear]] = defaultdict(list)
        for one in self._inventory.linears:
            found[one.parameter.tensor].append(one)
        return found

    @cached_property
    def _whole(self) -> Mapping[str, str]:
        """Parameters that are not quantized, to the tensor of the source that they are."""
        planned = {one.linear.name for one in self._plan.quantized}
        found = {
            parameter: tensor
            for parameter, tensor in self._inventory.others.items()
            if tensor not in self._source.packed
        }
        found |= {
            one.parameter.tensor: one.source.tensor
            for one in self._inventory.linears
            if one.name not in planned
            and one.source == Slice(tensor=one.source.tensor)
            and one.parameter == Slice(tensor=one.parameter.tensor)
        }
        uses: dict[str, int] = defaultdict(int)
        for tensor in found.values():
            uses[tensor] += 1
        return {parameter: tensor for parameter, tensor in found.items() if uses[tensor] == 1}


class _Samples:
    """Takes some tokens of what each reader reads, while the layer runs once."""

    def __init__(self, readers: set[str]) -> None:
        self._taken: dict[str, dict[int, list[Tensor]]] = {name: {} for name in readers}

    def of_all(self, fold: Fold) -> Tensor:
        """Return the tokens [N, I] of the reader that saw the most."""
        each = [
            [one for some in self._taken[part.name].values() for one in some]
            for part in fold.readers
        ]
        found = max((torch.cat(some) for some in each if some), key=len, default=torch.empty(0))
        return found[:: -(-len(found) // _TOKENS) or 1]

    def of(self, fold: Fold, expert: int) -> Tensor:
        """Return the tokens [N, I] of one expert."""
        taken = self._taken[fold.readers[0].name].get(expert, ())
        return torch.cat(list(taken)) if taken else torch.empty(0)

    def see(self, name: str, expert: int | None, input_NI: Tensor) -> None:
        """Take rows of one input, as far as more are wanted."""
        if name not in self._taken or not input_NI.numel():
            return
        taken = self._taken[name].setdefault(expert or 0, [])
        wanted = _TOKENS - sum(map(len, taken))
        if wanted > 0:
            rows_NI = input_NI.reshape(-1, input_NI.shape[-1])
            taken.append(rows_NI[:: -(-len(rows_NI) // wanted)].clone())

    def see_grouped(self, name: str, ends_E: Tensor, input_NI: Tensor) -> None:
        """Take rows of each expert's."""
        begin = 0
        for expert, end in enumerate(ends_E.tolist() if name in self._taken else ()):
            self.see(name, expert, input_NI[begin:end])
            begin = end


def _part(name: str, where: Slice) -> Part:
    return Part(name, where.rows, where.step, where.is_transposed)


def _some(view: Tensor, expert: int | None) -> Sequence[Tensor]:
    """Return one expert's matrix, the only one, or some of all."""
    if view.ndim == _MATRIX:
        return [view]
    return [view[expert]] if expert is not None else list(view[:: -(-len(view) // _EXPERTS)])


def _kind(foldable: Foldable) -> _Kind:
    module = foldable.layer.module
    parameters = tuple((name, value.shape) for name, value in module.named_parameters())
    modules = tuple((name, type(one)) for name, one in module.named_modules())
    return parameters, modules, tuple(foldable.givers), tuple(foldable.readers.values())
