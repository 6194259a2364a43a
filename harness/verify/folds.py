"""Powers of two that were taken out of the inputs of some weights and put into these.

No record says so: exponents are found in the files. A norm shows them by what it differs in from
the source's, the rows of a matrix by how large they are beside the source's, and the columns of
what reads them have to follow with the opposite ones: to the bit where a matrix is not quantized,
as near as rounding leaves them where it is. Whether what follows is all that has to follow is asked
of the source itself, which has to compute the same bits with these powers as without
(`models.unproven`). Where it does not, all is said of the layer that is said of any weights that
are not the source's.

Shapes: O output features, I input features.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import models
from harness.errors import HarnessError
from harness.verify.compare import Comparison, Exponents, Fitted, bound_of
from harness.verify.contents import Contents
from harness.verify.dequantize import Coded, can_dequantize, find_weight
from harness.verify.fitting import Fit, pieces_of
from harness.verify.gains import Gains
from harness.verify.modules import is_quantized
from harness.verify.origin import copied_from, source_part
from harness.verify.stored import Floats, StoredPart

_LAYER = re.compile(r".*?\.\d+(?=\.)")
_MOST = 32
"""Of an exponent; what differs by more is no factor."""
_NEAR = 0.3
"""How far a logarithm may be from its exponent: rounding changes rows by a few percent."""
_MOST_TRIED = 2
"""Layers without a changed norm, of which none is explained, until no more are looked at: salad."""
_FLOATS = frozenset({"BF16", "F16", "F32"})


class _Quantized(NamedTuple):
    algo: str
    weight: Coded
    part: StoredPart


class _Explained(NamedTuple):
    """What a quantized weight is, as far as powers of two tell."""

    rows_O: Exponents
    columns_I: Exponents
    fit: Fit
    """Beside the source with these powers."""
    are_near: bool
    """All rows and columns, each by itself."""

    @property
    def is_changed(self) -> bool:
        return bool(self.rows_O.any() or self.columns_I.any())


class _Layer(NamedTuple):
    """What differs from the source in one decoder layer, as far as powers of two explain it."""

    norms: Mapping[str, Exponents]
    matrices: Mapping[str, Exponents]
    """Those that are not quantized."""
    quantized: Mapping[str, tuple[_Quantized, _Explained]]

    @property
    def names(self) -> set[str]:
        return {*self.norms, *self.matrices, *self.quantized}

    @property
    def is_paired(self) -> bool:
        """Whether something follows all that was divided, feature by feature.

        A layer that is run tells nothing of a feature that no token reaches.
        """
        each = [one for _, one in self.quantized.values()]
        columns = [*self.matrices.values(), *(one.columns_I for one in each)]
        given = [*self.norms.values(), *(one.rows_O for one in each if one.rows_O.any())]
        are_followed = all(any(np.array_equal(-one, k) for k in columns) for one in given)
        return are_followed and all(one.are_near for one in each)


def settle_folds(contents: Contents, comparison: Comparison) -> None:
    """Let the comparison know of what is folded, where that is proven; files are held open."""
    layers = [one for one in _layers(contents, comparison) if one.names and one.is_paired]
    if not layers or contents.origin is None:
        return
    powers = models.Powers(
        {
            name: tuple(k.tolist())
            for one in layers
            for name, k in (*one.norms.items(), *one.matrices.items())
        },
        {
            name: (tuple(found.rows_O.tolist()), tuple(found.columns_I.tolist()))
            for one in layers
            for name, (_, found) in one.quantized.items()
        },
    )
    try:
        unproven = models.unproven(contents.origin.directory, powers)
    except HarnessError:  # nothing is known of it
        return
    for layer in layers:
        if layer.names.isdisjoint(unproven):
            near = {
                name: Fitted(one.algo, found.fit, one.weight, (found.rows_O, found.columns_I))
                for name, (one, found) in layer.quantized.items()
                if found.fit.is_within(bound_of(one.algo))
            }
            comparison.settle({*layer.norms, *layer.matrices}, near)


def _layers(contents: Contents, comparison: Comparison) -> Iterator[_Layer]:
    """Yield decoder layers in which something differs."""
    differing: dict[str, list[str]] = defaultdict(list)
    for name in [*comparison.changed, *(misfit.module for misfit in comparison.misfits)]:
        if layer := _LAYER.match(name):
            differing[layer[0]].append(name)
    modules: dict[str, list[str]] = defaultdict(list)
    for module in contents.modules if differing else ():
        if layer := _LAYER.match(module):
            modules[layer[0]].append(module)
    num_tried = 0
    for path, names in differing.items():
        norms = dict(_vectors(names, comparison))
        if not norms and num_tried == _MOST_TRIED:
            continue
        matrices = dict(_matrices(names, comparison, norms.values()))
        found = _Weights(contents, comparison, modules[path]).explained(norms.values())
        quantized = {name: one for name, one in found.items() if one[1].is_changed}
        num_tried = num_tried if norms or quantized else num_tried + 1
        yield _Layer(norms, matrices, quantized)


def _vectors(names: Iterable[str], comparison: Comparison) -> Iterator[tuple[str, Exponents]]:
    """Yield vectors that are those of the source times 2^k, and k [I]."""
    source = comparison.source
    for name in names:
        mine, theirs = comparison.checkpoint.headers.get(name), source.headers.get(name)
        if mine is None or theirs is None or len(mine.shape) != 1 or mine.dtype not in _FLOATS:
            continue
        if (theirs.shape, theirs.dtype) != (mine.shape, mine.dtype):
            continue
        values = comparison.checkpoint.floats(comparison.checkpoint.whole(name))
        digits, exponent_I = np.frexp(values)
        their_digits, their_exponent_I = np.frexp(source.floats(source.whole(name)))
        found: Exponents = np.where(values == 0, 0, exponent_I - their_exponent_I).astype(np.int32)
        if np.array_equal(digits, their_digits) and np.abs(found).max(initial=0) <= _MOST:
            yield name, found


def _matrices(
    names: Iterable[str], comparison: Comparison, norms: Iterable[Exponents]
) -> Iterator[tuple[str, Exponents]]:
    """Yield unquantized matrices that follow a norm to the bit, and their k [I]."""
    tried = [-exponent_I for exponent_I in norms]
    for name in names:
        header = comparison.checkpoint.headers.get(name)
        if header is None or len(header.shape) != 2 or header.dtype not in _FLOATS:  # noqa: PLR2004  a matrix
            continue
        pairs = copied_from(name, header, comparison.source)
        if len(pairs) != 1 or pairs[0].source.shape != header.shape:
            continue
        mine = comparison.checkpoint.floats(comparison.checkpoint.whole(name))
        theirs = comparison.source.floats(pairs[0].source)
        fitting = (k for k in tried if len(k) == header.shape[1])
        found = next((k for k in fitting if np.array_equal(mine, np.ldexp(theirs, k))), None)
        if found is not None:
            yield name, found


class _Weights:
    """The quantized weights of one decoder layer beside their source's."""

    def __init__(self, contents: Contents, comparison: Comparison, modules: Sequence[str]) -> None:
        self._comparison = comparison
        found = ((module, _quantized(module, contents, comparison)) for module in modules)
        self._weights = {module: one for module, one in found if one is not None}

    def explained(self, norms: Iterable[Exponents]) -> Mapping[str, tuple[_Quantized, _Explained]]:
        """Return the powers that each weight is nearest to its source with.

        Columns follow a norm, or the rows of a weight beside it.
        """
        tried = [-exponent_I for exponent_I in norms]
        found = {
            module: min(self._with(one, tried), key=lambda it: it.fit.error)
            for module, one in self._weights.items()
        }
        for module, one in self._weights.items():
            width = one.weight.shape[1]
            rows = [
                -found[other].rows_O
                for other in self._beside(module)
                if found[other].rows_O.any() and len(found[other].rows_O) == width
            ]
            if rows:
                again = self._with(one, rows)
                found[module] = min([found[module], *again], key=lambda it: it.fit.error)
        return {module: (self._weights[module], one) for module, one in found.items()}

    def _beside(self, module: str) -> Iterator[str]:
        parent = module.rpartition(".")[0]
        return (other for other in self._weights if other.rpartition(".")[0] == parent)

    def _with(self, one: _Quantized, tried: Sequence[Exponents]) -> Sequence[_Explained]:
        """Return what a weight is without powers of columns, and with each that is tried."""
        height, width = one.weight.shape
        columns = [np.zeros(width, np.int32), *(k for k in tried if len(k) == width)]
        rows = np.zeros((len(columns), height), np.int32)
        sums, gains = np.zeros((len(columns), 3)), [Gains((height, width)) for _ in columns]
        given = one.weight, self._comparison.checkpoint, one.part, self._comparison.source
        for first, mine, theirs in pieces_of(*given):
            for number, exponent_I in enumerate(columns):
                scaled = np.ldexp(theirs, exponent_I)
                exponent_O = _ratios(mine, scaled)
                rows[number, first : first + len(mine)] = exponent_O
                scaled = np.ldexp(scaled, exponent_O[:, None])
                sums[number] += _sums(mine, scaled)
                gains[number].add(first, mine, scaled, (exponent_O, exponent_I))
        return [
            _Explained(rows[n], k, _fit(sums[n]), gains[n].are_near())
            for n, k in enumerate(columns)
        ]


def _quantized(module: str, contents: Contents, comparison: Comparison) -> _Quantized | None:
    if not is_quantized(contents.modules[module]):
        return None
    layout, algo = contents.layout_of(module), contents.algo_of(module)
    if layout is None or algo is None or not can_dequantize(algo):
        return None
    weight = find_weight(module, layout, comparison.checkpoint)
    part = source_part(module, comparison.source)
    if weight is None or part is None or part.shape != weight.shape:
        return None
    return _Quantized(algo, weight, part)


def _ratios(mine: Floats, theirs: Floats) -> Exponents:
    """Return k of each row, of which the source's is 2^k times as large; 0 where nothing tells."""
    products, squares = np.einsum("ij,ij->i", mine, theirs), np.einsum("ij,ij->i", theirs, theirs)
    ratio = np.where((products > 0) & (squares > 0), products, 1) / np.where(
        (products > 0) & (squares > 0), squares, 1
    )
    log_O = np.log2(ratio)
    nearest_O = np.clip(np.rint(log_O), -_MOST, _MOST)
    exponents: Exponents = np.where(np.abs(log_O - nearest_O) < _NEAR, nearest_O, 0)
    return exponents.astype(np.int32)


def _sums(mine: Floats, theirs: Floats) -> NDArray[np.float64]:
    off = mine - theirs
    pairs = ((mine, theirs), (theirs, theirs), (off, off))
    return np.array([np.einsum("ij,ij->i", *pair).sum(dtype=np.float64) for pair in pairs])


def _fit(sums: NDArray[np.float64]) -> Fit:
    product, squared, squared_error = map(float, sums)
    if squared == 0:
        return Fit(float(squared_error > 0), 1.0)
    return Fit((squared_error / squared) ** 0.5, product / squared)
