"""Which factors of a decoder layer's inputs can be folded away, found by running the layer.

Features of an input may be divided by powers of two where what makes them can be divided, a norm's
weight or rows of a matrix, and where all that reads them are products with weights: their columns
are multiplied with the same. Who reads what is looked for and not told by names: three features are
set to zero where they are made, and who then gets zeros reads them. That nothing else does is
proven: with random powers of two the layer has to return the same bits. A norm that multiplies with
1 + w, a bias, an activation or a bound in between, or a residual that begins behind the norm makes
other bits, and is left alone.

Shapes: E experts, O output features, I input features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.algorithms import power_of_two
from harness.models import ResidentLayer, tap_linears

Run = Callable[[], Tensor]
"""Runs the layer on the same inputs again."""
_MARKED = 3
_MOST = 6
"""Of a random exponent, which so meets bounds of what flows in between; float16 ends at 2^-24."""


class Part(NamedTuple):
    """A vector, or matrices [O, I] of one parameter: of all experts, where it has several."""

    name: str
    """Of the parameter within its layer."""
    rows: tuple[int, int] | None = None
    """First row and the row after the last; None for all rows."""
    step: int = 1
    is_transposed: bool = False


class Fold(NamedTuple):
    """What makes features, and all that reads them."""

    giver: Part
    readers: tuple[Part, ...]


class Foldable(NamedTuple):
    """A decoder layer while its weights are in memory."""

    layer: ResidentLayer
    givers: Sequence[Part]
    """What may be divided: vectors, and rows of matrices."""
    readers: Mapping[str, Part]
    """What may be multiplied, by the name of the parameter."""
    products: frozenset[str]
    """Parameters of all linear layers: until each was seen, not all readers are known."""

    def view(self, part: Part) -> Tensor:
        """Return [I], [O, I] or [E, O, I], which may be changed."""
        value = self.layer.module.get_parameter(part.name).data
        value = value.mT if part.is_transposed else value
        return value if part.rows is None else value[..., slice(*part.rows, part.step), :]

    def num_features(self, giver: Part) -> int:
        """Return how many it makes."""
        view = self.view(giver)
        return view.shape[0] if view.ndim == 1 else view.shape[-2]


class Inexact(Exception):  # noqa: N818  # no error: the fold is not made
    """A value has no room for the factor in its type."""


def find_folds(layer: Foldable, run: Run) -> Sequence[Fold]:
    """Return the folds of a layer that are proven.

    None where its projections have different numbers of experts: `harness verify`, which asks the
    experts in turn, could not prove them.
    """
    shapes = [layer.layer.module.get_parameter(name).shape for name in layer.products]
    if len({shape[0] for shape in shapes if len(shape) > 2}) > 1:  # noqa: PLR2004  # a matrix has two
        return []
    wanted, folds = run(), []
    widths = {layer.view(part).shape[-1] for part in layer.readers.values()}
    for giver in layer.givers:
        if layer.num_features(giver) in widths:
            names = _readers(layer, giver, run)
            if names and names <= layer.readers.keys():
                fold = Fold(giver, tuple(layer.readers[name] for name in sorted(names)))
                if _is_possible(layer, fold) and _is_proven(layer, fold, run, wanted):
                    folds.append(fold)
    return folds


def _readers(layer: Foldable, giver: Part, run: Run) -> set[str]:
    """Return the parameters whose inputs are zero where a giver is.

    None where a linear layer was not seen, such as an expert that no token reached.
    """
    view, width = layer.view(giver), layer.num_features(giver)
    marked = torch.linspace(0, width - 1, _MARKED + 2).long()[1:-1].to(view.device)
    where = marked if view.ndim == 1 else (..., marked, slice(None))
    kept = view[where].clone()
    is_reader: dict[str, bool] = {}

    def see(name: str, expert: int | None, input_NI: Tensor) -> None:
        del expert
        if input_NI.numel():
            is_zero = input_NI.shape[-1] == width and not bool(input_NI[..., marked].any())
            is_reader[name] = is_reader.get(name, True) and is_zero

    def see_grouped(name: str, ends_E: Tensor, input_NI: Tensor) -> None:
        see(name, None, input_NI[: int(ends_E[-1])])

    view[where] = 0
    try:
        with tap_linears(layer.layer.module, see, see_grouped):
            run()
    finally:
        view[where] = kept
    if not layer.products <= is_reader.keys():
        return set()
    return {name for name, is_it in is_reader.items() if is_it}


def _is_possible(layer: Foldable, fold: Fold) -> bool:
    """Return whether each expert's features are read by that expert alone, where experts give."""
    experts = layer.view(fold.giver).shape[:-2]
    return not experts or all(layer.view(one).shape[:-2] == experts for one in fold.readers)


def _is_proven(layer: Foldable, fold: Fold, run: Run, wanted: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    view = layer.view(fold.giver)
    shape = (*view.shape[:-2], layer.num_features(fold.giver))
    exponent = torch.randint(-_MOST, _MOST + 1, shape, generator=generator)
    is_same = fold_in_if_same(layer, fold, exponent, lambda: torch.equal(run(), wanted))
    if is_same:
        fold_in(layer, fold, -exponent)
    return is_same


def fold_in_if_same(
    layer: Foldable, fold: Fold, exponent: Tensor, is_same: Callable[[], bool]
) -> bool:
    """Fold exponents, if that is possible; take them out again unless all is as it was.

    Returns:
        Whether they are folded.
    """
    try:
        fold_in(layer, fold, exponent)
    except Inexact:
        return False
    kept = False
    try:
        kept = is_same()
    finally:
        if not kept:
            fold_in(layer, fold, -exponent)
    return kept


def fold_in(layer: Foldable, fold: Fold, exponent: Tensor) -> None:
    """Divide a giver by 2^k, and multiply what reads it with 2^k; k is [I], or [E, I].

    Raises:
        Inexact: a value has no room for it; nothing was changed.
    """
    giver = layer.view(fold.giver)
    own = [(giver, -exponent if giver.ndim == 1 else -exponent.unsqueeze(-1))]
    own += [(layer.view(one), exponent.unsqueeze(-2)) for one in fold.readers]
    done: list[tuple[Tensor, Tensor]] = []
    try:
        for view, exponents in own:
            _scale(view, exponents)
            done.append((view, exponents))
    except Inexact:
        for view, exponents in done:
            _scale(view, -exponents)
        raise


def _scale(view: Tensor, exponents: Tensor) -> None:
    """Multiply in place; a stack of experts matrix by matrix.

    Raises:
        Inexact: a value has no room for it; nothing was changed.
    """
    exponents = exponents.to(view.device).expand(*view.shape[:-2], *exponents.shape[-2:])
    is_stack = view.ndim > 2  # noqa: PLR2004  # a matrix has two
    each = list(zip(view, exponents, strict=True)) if is_stack else [(view, exponents)]
    for number, (one, exponent) in enumerate(each):
        scaled = one * power_of_two(exponent).to(one.dtype)
        if not torch.equal(scaled * power_of_two(-exponent).to(one.dtype), one):
            for before, its_exponent in each[:number]:
                before.mul_(power_of_two(-its_exponent).to(before.dtype))
            raise Inexact
        one.copy_(scaled)
