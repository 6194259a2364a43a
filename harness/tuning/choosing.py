"""Which format each unit gets: the least sum of divergences within the bits, solved exactly.

A choice of one format a unit under one budget is a multiple-choice knapsack. scipy's mixed-integer
solver (HiGHS) solves it; sums of bits are checked in whole numbers afterwards, for a solver
computes with tolerances.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from harness.artifacts import LEFT, Frontier, OptionCost, Point, Sensitivities, UnitCosts
from harness.errors import UsageError

MOST_POINTS = 100
"""Of a frontier; one with more is stepped over at equal distances of bits."""
_SCALE = 1e6
"""Of the largest number of an objective: the solver ends within 1e-6 of the best."""
_OUTPUT = 1
"""File descriptor of the process's standard output."""
_SLACK = 1e-9
"""Relative, of a divergence that is held while bits are made fewer."""


class Assigned(NamedTuple):
    """One format for each unit."""

    choice: Mapping[str, str]
    num_bits: int
    kld: float


class Knapsack:
    """All recipes of a model's units: at least one unit is quantized."""

    def __init__(self, units: Sequence[UnitCosts]) -> None:
        """Take what each option costs; options that another one of their unit beats are left out.

        Args:
            units: each with at least one option.
        """
        self._units = units
        self._options = [
            (index, name, one.options[name])
            for index, one in enumerate(units)
            for name in _unbeaten(one.options)
        ]
        self._kld = np.array([option.kld for *_, option in self._options])
        self._bits = np.array([float(option.num_bits) for *_, option in self._options])
        self._rows = np.zeros((len(units), len(self._options)))
        for column, (index, *_) in enumerate(self._options):
            self._rows[index, column] = 1.0
        self._left = np.array([float(name == LEFT) for _, name, _ in self._options])

    def fewest(self) -> Assigned:
        """Return the recipe of the fewest bits."""
        return self._assigned(self._solved(self._bits, []))

    def within(self, capacity: float) -> Assigned | None:
        """Return the recipe of the least divergence within stored bits, and of these the smallest.

        None where none is so small.
        """
        limit = capacity
        while True:
            least = self._solved(self._kld, [_at_most(self._bits, limit)])
            if least is None:
                return None
            bound = float(self._kld @ least) * (1 + _SLACK)
            both = [_at_most(self._bits, limit), _at_most(self._kld, bound)]
            found, smallest = self._assigned(least), self._solved(self._bits, both)
            if smallest is not None and float(self._kld @ smallest) <= bound:
                found = self._assigned(smallest)
            if found.num_bits <= capacity:
                return found
            limit -= found.num_bits - capacity  # by as much as the solver tolerated

    def _solved(
        self,
        objective: "np.ndarray[tuple[int], np.dtype[np.float64]]",
        more: list[LinearConstraint],
    ) -> "np.ndarray[tuple[int], np.dtype[np.float64]] | None":
        """Return which options are taken; None where nothing is allowed."""
        count = len(self._units)
        one_each = LinearConstraint(self._rows, 1, 1)
        not_all_left = LinearConstraint(self._left, -np.inf, count - 1)
        with _nothing_printed():
            found = milp(
                objective * (_SCALE / (objective.max() or 1.0)),
                integrality=np.ones(len(self._options)),
                bounds=Bounds(0, 1),
                constraints=[one_each, not_all_left, *more],
                options={"mip_rel_gap": 0},
            )
        return None if found.x is None else np.round(found.x)

    def _assigned(self, taken: "np.ndarray[tuple[int], np.dtype[np.float64]] | None") -> Assigned:
        if taken is None:
            message = "no unit can be quantized in any of the formats. Name others with --formats."
            raise UsageError(message)
        chosen = [option for option, is_taken in zip(self._options, taken, strict=True) if is_taken]
        return Assigned(
            {self._units[index].unit: name for index, name, _ in chosen},
            sum(option.num_bits for *_, option in chosen),
            math.fsum(option.kld for *_, option in chosen),
        )


def frontier_of(found: Sensitivities, capacity: float = math.inf) -> Frontier:
    """Return the recipes that no other one beats by the sums, and those with one format for all.

    Args:
        found: what each option costs.
        capacity: stored bits within which the best one is among the points, however many there are.

    Raises:
        UsageError: nothing fits into the capacity.
    """
    knapsack = Knapsack(found.units)
    fewest, best = knapsack.fewest(), knapsack.within(math.inf)
    wanted = best if math.isinf(capacity) else knapsack.within(capacity)
    if wanted is None or best is None:
        least, asked = fewest.num_bits / found.num_weights, capacity / found.num_weights
        message = (
            f"--bits {asked:.2f}: the least that these formats take is {least:.2f} bits a weight. "
            f"Type at least --bits {least:.2f}, or name smaller formats with --formats."
        )
        raise UsageError(message)
    points = {best.num_bits: best, wanted.num_bits: wanted}
    step = (best.num_bits - fewest.num_bits) / MOST_POINTS
    last = best
    while last.num_bits > fewest.num_bits:
        following = knapsack.within(min(last.num_bits - 1, last.num_bits - step))
        if following is None:
            break
        last = following
        points[last.num_bits] = last
    return Frontier(
        points=tuple(_point("frontier", points[bits], found) for bits in sorted(points)),
        uniform=tuple(_uniform(found)),
        num_texts=0,
        num_tokens=0,
    )


def _uniform(found: Sensitivities) -> list[Point]:
    """Return a recipe a format: of all units that can have it; what cannot is left."""
    names = dict.fromkeys(n for one in found.units for n in one.options if n != LEFT)
    points = []
    for name in names:
        choice = {one.unit: name if name in one.options else LEFT for one in found.units}
        taken = [(one, choice[one.unit]) for one in found.units]
        if all(chosen in one.options for one, chosen in taken):
            options = [one.options[chosen] for one, chosen in taken]
            bits, kld = sum(o.num_bits for o in options), math.fsum(o.kld for o in options)
            points.append(_point(f"all {name}", Assigned(choice, bits, kld), found))
    return points


def _point(name: str, one: Assigned, found: Sensitivities) -> Point:
    return Point(
        name=name,
        choice=one.choice,
        num_bits=one.num_bits,
        bits=one.num_bits / found.num_weights,
        kld=one.kld,
    )


def _unbeaten(options: Mapping[str, OptionCost]) -> list[str]:
    """Return the options of a unit that none with no more bits has a smaller divergence than."""
    kept: list[str] = []
    for name in sorted(options, key=lambda name: (options[name].num_bits, options[name].kld)):
        if not kept or options[name].kld < options[kept[-1]].kld:
            kept.append(name)
    return kept


def _at_most(row: "np.ndarray[tuple[int], np.dtype[np.float64]]", limit: float) -> LinearConstraint:
    """Return the constraint, in numbers that the solver's tolerances are made for."""
    size = float(row.max()) or 1.0
    return LinearConstraint(row / size, -np.inf, limit / size)


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Keep what the solver's own code prints out of what the command prints.

    The HiGHS of scipy 1.17 writes lines about its search to the process's output, whatever it is
    told.
    """
    sys.stdout.flush()
    flush, kept = ctypes.CDLL(None).fflush, os.dup(_OUTPUT)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            flush(None)
            os.dup2(nowhere.fileno(), _OUTPUT)
            yield
    finally:
        flush(None)
        os.dup2(kept, _OUTPUT)
        os.close(kept)
