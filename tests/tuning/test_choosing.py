"""The choice is exact: held against every recipe there is, on models small enough to list them."""

import itertools
import math
import random

import pytest

from harness.artifacts import LEFT, OptionCost, Sensitivities, UnitCosts
from harness.errors import UsageError
from harness.tuning.choosing import Knapsack, frontier_of

Listed = list[tuple[int, float, tuple[str, ...]]]


def sensitivities(seed: int, num_units: int = 6) -> Sensitivities:
    draw = random.Random(seed)  # noqa: S311 -- no secret
    units = []
    for number in range(num_units):
        weights = draw.choice([64, 96, 1024])
        bits = {"nvfp4": weights * 9 // 2 + 32, "fp8": weights * 8 + 32, LEFT: weights * 16}
        klds = {"nvfp4": draw.uniform(0.01, 1), "fp8": draw.uniform(0, 0.05), LEFT: 0.0}
        options = {
            name: OptionCost(num_bits=bits[name], kld=klds[name], stderr=0.0) for name in bits
        }
        units.append(UnitCosts(unit=f"unit{number}", num_weights=weights, options=options))
    return Sensitivities(units=tuple(units), num_texts=2, num_tokens=8, floor=0.0)


def every_recipe(found: Sensitivities) -> Listed:
    listed = []
    for names in itertools.product(*(one.options for one in found.units)):
        if set(names) != {LEFT}:
            taken = [one.options[name] for one, name in zip(found.units, names, strict=True)]
            bits, kld = sum(one.num_bits for one in taken), math.fsum(one.kld for one in taken)
            listed.append((bits, kld, names))
    return listed


@pytest.mark.parametrize("seed", range(5))
def test_no_recipe_within_the_bits_is_better(seed: int) -> None:
    found = sensitivities(seed)
    knapsack, listed = Knapsack(found.units), every_recipe(found)
    sizes = sorted(bits for bits, *_ in listed)
    for capacity in sizes[:: len(sizes) // 12]:
        best = min(kld for bits, kld, _ in listed if bits <= capacity)
        chosen = knapsack.within(capacity)
        assert chosen is not None
        assert chosen.num_bits <= capacity
        assert chosen.kld == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_frontier_is_every_recipe_that_none_beats(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tuning.choosing.MOST_POINTS", 10_000)
    found = sensitivities(seed, num_units=3)
    unbeaten, least = [], math.inf
    for bits, kld, _ in sorted(every_recipe(found)):
        if kld < least:
            unbeaten.append((bits, kld))
            least = kld
    points = frontier_of(found).points
    assert [one.num_bits for one in points] == [bits for bits, _ in unbeaten]
    assert [one.kld for one in points] == pytest.approx([kld for _, kld in unbeaten])


def test_recipes_of_one_format_are_beside_it() -> None:
    found = sensitivities(0)
    uniform = frontier_of(found).uniform
    assert [one.name for one in uniform] == ["all nvfp4", "all fp8"]
    assert uniform[0].num_bits == sum(one.options["nvfp4"].num_bits for one in found.units)


def test_the_recipe_of_the_budget_is_a_point_of_the_frontier() -> None:
    found = sensitivities(3, num_units=40)
    capacity = 6.0 * found.num_weights
    best = Knapsack(found.units).within(capacity)
    assert best is not None
    assert best.num_bits in {one.num_bits for one in frontier_of(found, capacity).points}


def test_too_few_bits_are_refused_with_the_least() -> None:
    found = sensitivities(0)
    with pytest.raises(UsageError, match=r"the least that these formats take is 4\.\d\d bits"):
        frontier_of(found, 4.0 * found.num_weights)


def test_a_recipe_that_leaves_everything_is_none() -> None:
    found = sensitivities(1)
    best = Knapsack(found.units).within(math.inf)
    assert best is not None
    assert set(best.choice.values()) != {LEFT}


def test_the_solver_prints_nothing_among_what_a_command_prints(
    capfd: pytest.CaptureFixture[str],
) -> None:
    frontier_of(sensitivities(4, num_units=60))
    assert capfd.readouterr().out == ""
