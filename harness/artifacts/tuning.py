"""What tuning a recipe finds: what each format costs each unit, the frontier, the attempts."""

from collections.abc import Mapping
from dataclasses import dataclass

LEFT = "none"
"""The format of what is left as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionCost:
    """What a format costs a unit by itself, everything else unquantized."""

    num_bits: int
    """Stored, all scales included."""
    kld: float
    """Of the output from the unquantized model's, nats a token."""
    stderr: float
    """Over texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitCosts:
    """Layers that engines run as one, and what each format costs them."""

    unit: str
    num_weights: int
    options: Mapping[str, OptionCost]
    """By format; `none` among them where it may be left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivities:
    """What one pass over texts has found."""

    units: tuple[UnitCosts, ...]
    """In the order of the model."""
    num_texts: int
    num_tokens: int
    floor: float
    """Divergence of a stream in which nothing is rounded: the pass's own error."""

    @property
    def num_weights(self) -> int:
        """Return the weights that may be quantized."""
        return sum(one.num_weights for one in self.units)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A recipe: one format for each unit."""

    name: str
    """`frontier`, or `all nvfp4` of one with one format."""
    choice: Mapping[str, str]
    """The format of each unit."""
    num_bits: int
    bits: float
    """Stored bits a weight, scales included, over all weights that may be quantized."""
    kld: float
    """Sum of what its formats cost each unit alone."""
    measured: float | None = None
    """Divergence with all of it rounded at once, on other texts; None where it was not measured."""
    stderr: float | None = None
    """Of `measured`, over texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """Recipes of which none has both fewer bits and less divergence, and uniform ones beside."""

    points: tuple[Point, ...]
    """From the fewest bits to the most, by the sum over units."""
    uniform: tuple[Point, ...]
    num_texts: int
    """On which recipes were measured as a whole."""
    num_tokens: int

    def made(self) -> tuple[Point, ...]:
        """Return measured recipes that no other measured one beats, from the fewest bits on."""
        known = [one for one in (*self.uniform, *self.points) if one.measured is not None]
        found: list[Point] = []
        for one in sorted(known, key=lambda one: (one.num_bits, one.measured)):
            if not found or (one.measured or 0.0) < (found[-1].measured or 0.0):
                found.append(one)
        return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A recipe that was put to the gate."""

    bits: float
    measured: float | None
    recipe: str
    """File of the recipe."""
    run: str
    """Directory of its run."""
    decision: str | None
    """None where the run failed."""
    exit_code: int
    summary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How tuning ended."""

    model: str
    goal: str
    """`4.80 bits`, or `suite canary`."""
    formats: tuple[str, ...]
    chosen: Point
    attempts: tuple[Attempt, ...]
    """In the order in which they were made."""
    best: Attempt
    """That of `chosen`: the smallest with GO; else the one that came nearest."""
