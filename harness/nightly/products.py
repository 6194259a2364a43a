"""Cells as the product of axes: every combination, without those that are excluded.

    products:
      - name: moe
        with: {model: canary, suite: drill}
        axes:
          qformat: [nvfp4, fp8]
          engine:
            - reference
            - {label: v33, engine: vllm, version: 0.33.0}
        exclude:
          - {qformat: fp8, engine: v33}

makes `moe-nvfp4-reference`, `moe-nvfp4-v33` and `moe-fp8-reference`. A value of an axis is that of
the key of its name, or several keys under one label.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

from pydantic import Field

from harness.artifacts.limits import Name
from harness.errors import MatrixError
from harness.recipe import Strict, first_double

MAX_CELLS = 1000
"""As many as a Slurm array has by default."""
_NO_LABEL = re.compile(r"[^A-Za-z0-9._]+")
_MOST_SAID = 20
Values = dict[str, Any]


class ProductFile(Strict):
    """A product of axes."""

    name: Name
    """Every cell's name begins with it."""
    axes: Annotated[dict[str, list[Any]], Field(min_length=1, max_length=16)]
    exclude: tuple[dict[str, str | int | float | bool], ...] = ()
    """Labels or values by axis: what has all of them is left out."""
    with_: Annotated[Values, Field(alias="with", default_factory=dict)]
    """Keys that all its cells have."""


class _Point(NamedTuple):
    """One value of an axis."""

    axis: str
    label: str
    keys: Values

    def is_called(self, name: object) -> bool:
        return str(name) in {self.label, str(self.keys.get(self.axis))}


def cells_of(products: Sequence[ProductFile], path: Path) -> list[Values]:
    """Return the keys of every cell of the products, in the order of their axes.

    Raises:
        MatrixError: an axis, a label or an exclusion is wrong.
    """
    found: list[Values] = []
    for product in products:
        try:
            found += _multiplied(product)
        except ValueError as error:
            refuse(path, [f"product '{product.name}': {error}"])
    return found


def refuse(path: Path, mistakes: Sequence[str]) -> NoReturn:
    """Say what is wrong with a matrix.

    Raises:
        MatrixError: always.
    """
    more = len(mistakes) - _MOST_SAID
    rest = f"; and {more} more" if more > 0 else ""
    message = f"'{path}', {'; '.join(mistakes[:_MOST_SAID])}{rest}. Mend the file."
    raise MatrixError(message)


def _multiplied(product: ProductFile) -> list[Values]:
    axes = [[_point(axis, value) for value in values] for axis, values in product.axes.items()]
    for (name, _), points in zip(product.axes.items(), axes, strict=True):
        if not points:
            message = f"axis '{name}' has no values"
            raise ValueError(message)
        if twice := first_double([point.label for point in points]):
            message = f"axis '{name}' has '{twice}' twice; give one a label of its own"
            raise ValueError(message)
    _check_size(axes)
    unused = dict(enumerate(product.exclude))
    cells = []
    for chosen in itertools.product(*axes):
        hit = [n for n, one in enumerate(product.exclude) if _is_excluded(chosen, one)]
        for number in hit:
            unused.pop(number, None)
        if not hit:
            cells.append(_keys(product, chosen))
    if unused:
        message = f"exclude {next(iter(unused.values()))} leaves nothing out"
        raise ValueError(message)
    return cells


def _check_size(axes: Sequence[Sequence[_Point]]) -> None:
    size = 1
    for points in axes:
        size *= len(points)
    if size > MAX_CELLS:
        message = f"its axes make {size} cells, and {MAX_CELLS} are the most"
        raise ValueError(message)


def _point(axis: str, value: object) -> _Point:
    if not isinstance(value, Mapping):
        label = _NO_LABEL.sub("-", Path(str(value)).name).strip("-") or "value"
        return _Point(axis, label, {axis: value})
    keys = {str(key): one for key, one in value.items()}
    label = keys.pop("label", None)
    if not isinstance(label, str) or _NO_LABEL.sub("", label) == "" or not keys:
        message = f"a value of axis '{axis}' with several keys needs a label: {value!r:.80}"
        raise ValueError(message)
    return _Point(axis, label, keys)


def _is_excluded(points: Sequence[_Point], names: Mapping[str, object]) -> bool:
    """Return whether every axis that an exclusion names has the value that it names."""
    by_axis = {point.axis: point for point in points}
    return bool(names) and all(
        axis in by_axis and by_axis[axis].is_called(name) for axis, name in names.items()
    )


def _keys(product: ProductFile, points: Sequence[_Point]) -> Values:
    """Return the keys of one cell.

    Raises:
        ValueError: a key is said twice.
    """
    keys: Values = {"name": "-".join([product.name, *(point.label for point in points)])}
    for place, more in (("with", product.with_), *((f"axis '{p.axis}'", p.keys) for p in points)):
        for key, value in more.items():
            if key in keys:
                message = f"'{key}' of {place} is said already"
                raise ValueError(message)
            keys[key] = value
    return keys
