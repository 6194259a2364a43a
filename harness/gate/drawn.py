"""What a task with grouped items can decide, drawn at random: no sum over groups is short enough.

Groups have one size. Within a group an item takes the group's own fate with a probability that
gives the stated design effect, else one of its own. The draws are seeded, so that a plan is the
same each time, and 1,000, so that its chances are good to about 1.5 points.
"""

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice

from harness.artifacts import Claim, TaskSpec
from harness.gate.clusters import quantile_of
from harness.gate.exact import Chances
from harness.gate.mean import exceeds
from harness.gate.outlook import allowed_by, limit_of, lowest, value_of_each, worth
from harness.gate.signflip import Cluster, sign_flip_p

NEVER = 1.0
"""More than can be allowed."""
_DRAWS = 1_000
_SEED = 20_261_123
_STEPS = 10_000
"""What is allowed is told apart to a hundredth of a point."""
_KINDS = ("lost", "won", "right", "wrong")
_Drawn = Sequence[Counter[str]]
"""How many items of each kind each group has."""


@lru_cache(maxsize=64)
def least_allowed(task: TaskSpec, chances: Chances, confidence: float) -> tuple[float, ...]:
    """Return for each draw, ascending, the least that must be allowed for it to be GO."""
    draws = random.Random(_SEED)  # noqa: S311  a plan needs no secret
    return tuple(
        sorted(_least(task, _draw(task, chances, draws), confidence) for _ in range(_DRAWS))
    )


def _draw(task: TaskSpec, chances: Chances, draws: random.Random) -> _Drawn:
    shares = (
        chances.flips * chances.lost,
        chances.flips * (1 - chances.lost),
        (1 - chances.flips) * chances.right,
        (1 - chances.flips) * (1 - chances.right),
    )
    size, larger = divmod(task.items, task.clusters)
    alike = math.sqrt(min((task.design_effect - 1) / max(size - 1, 1), 1.0))
    own = iter(draws.choices(_KINDS, shares, k=task.items))
    groups: list[Counter[str]] = []
    for number, fate in enumerate(draws.choices(_KINDS, shares, k=task.clusters)):
        members = islice(own, size + (number < larger))
        groups.append(
            Counter(fate if alike and draws.random() < alike else kind for kind in members)
        )
    return groups


def _least(task: TaskSpec, drawn: _Drawn, confidence: float) -> float:
    """Return the least that must be allowed, by bisection; as the gate would find it."""
    claimed = task.claim is Claim.LOSSLESS
    if claimed and sign_flip_p(_groups(drawn, _differences(task))) <= 1 - confidence:
        return NEVER
    counts = Counter(dict.fromkeys(_KINDS, 0))
    for group in drawn:
        counts.update(group)
    here = value_of_each(task, allowed_by(task))
    quantile = quantile_of(
        worth(counts, here), _groups(drawn, here), confidence=confidence, least=task.design_effect
    )

    def is_go(step: int) -> bool:
        allowed = step / _STEPS
        values = worth(counts, value_of_each(task, allowed))
        bottom = lowest(task, allowed)
        return exceeds(values, limit_of(task, allowed), lowest=bottom, quantile=quantile)

    return (1 + bisect_left(range(1, _STEPS), x=True, key=is_go)) / _STEPS


def _differences(task: TaskSpec) -> Mapping[str, float]:
    """Return the difference of each kind of item."""
    step = task.spread if task.value_range else 1.0
    return {"lost": -step, "won": step, "right": 0.0, "wrong": 0.0}


def _groups(drawn: _Drawn, value: Mapping[str, float]) -> list[Cluster]:
    return [
        Cluster(sum(value[kind] * number for kind, number in group.items()), group.total())
        for group in drawn
    ]
