"""What is planted in three weeks of nights, and the answers of every cell in every night.

A cell's items are of four sorts. Some answer by chance, anew in each run of the same bytes (A/A).
Some changed once, either way as often, when a new engine came. Some are lost, since a night, or a
few more every night. The others stay as they are. Beside a bad night nothing else is drawn anew.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_NIGHTS = 21
TASKS = {"gsm8k": 1_319, "ifeval": 300}
"""Items of each task; what is lost is lost on the first."""
LOSING = "gsm8k"
_BASELINE_RIGHT = 0.9
_FLIPPED_BY_QUANTIZATION = 0.01
_WAIVED_LOSS = 0.15
LOAD_S, LOAD_NOISE, MEMORY = 60.0, 0.05, 4 << 30

Values = NDArray[np.bool_]
Answers = Mapping[str, Values]


class Plan(NamedTuple):
    """A cell, and what is planted in it; all losses are fractions of 1, all nights from 1."""

    name: str
    flips: float = 0.01
    """Share of items that flip between two runs of the same bytes."""
    changed: float = 0.0
    """Share that changes once, either way as often."""
    sudden: float = 0.0
    """Lost at once."""
    slow: float = 0.0
    """Lost every night."""
    bad: float = 0.0
    """Lost in one night, and not when that is run again."""
    since: int = 0
    """The night of all this; a bad night comes later where that night's run died."""
    waived: bool = False
    """Whether it loses more than its margin from the start, with a waiver."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is planted that an alarm should name."""
        return not (self.sudden or self.slow or self.bad)

    @property
    def words(self) -> str:
        """Return what is planted."""
        if self.sudden:
            return f"{100 * self.sudden:g} points lost from night {self.since} on"
        if self.slow:
            return f"{100 * self.slow:g} points lost a night from night {self.since} on"
        if self.bad:
            return f"{100 * self.bad:g} points lost in night {self.since} alone"
        if self.waived:
            return f"{100 * _WAIVED_LOSS:g} points less than the baseline from the start, waived"
        if self.changed:
            return f"{self.changed:.0%} of items changed in night {self.since}, nothing lost"
        return f"nothing ({self.flips:.0%} of items flip by chance)"


PLANS = (
    Plan("canary/nvfp4/reference", flips=0.0),
    Plan("canary/fp8/reference"),
    Plan("canary/nvfp4/vllm"),
    Plan("moe/nvfp4/vllm", flips=0.05),
    Plan("dense/nvfp4/vllm", changed=0.03, since=6),
    Plan("dense/mxfp8/vllm", flips=0.03),
    Plan("dense/nvfp4_awq/vllm", waived=True),
    Plan("dense/fp8/vllm", sudden=0.05, since=9),
    Plan("moe/fp8/vllm", slow=0.003, since=1),
    Plan("mla/nvfp4/vllm", bad=0.05, since=12),
)
SICK, SICK_SINCE, SICK_FAILS, OTHERS_FAIL = "node-3", 5, 0.5, 0.01
HOSTS = ("node-1", "node-2", "node-3", "node-4")


class _Items(NamedTuple):
    """The items of one task."""

    baseline: Values
    steady: Values
    """The candidate's answers as long as nothing happens."""
    is_unstable: Values
    is_changed: Values
    losable: NDArray[np.int64]
    """Items that are right and stay so, in the order in which they are lost."""


class DrawnCell:
    """One cell, of which nights can be drawn."""

    def __init__(self, plan: Plan, draws: np.random.Generator) -> None:
        """Draw what stays as it is over all nights."""
        self.plan, self._draws = plan, draws
        self.bad_night: int | None = None
        """In which it lost what is not lost again."""
        self._tasks = {task: self._items(size) for task, size in TASKS.items()}

    @property
    def baseline(self) -> Answers:
        """The unquantized model's answers."""
        return {task: items.baseline for task, items in self._tasks.items()}

    def rerun(self) -> Answers:
        """Draw the unquantized model's answers when it is asked again (A/A)."""
        return {task: self._by_chance(items, items.baseline) for task, items in self._tasks.items()}

    def night(self, number: int, *, is_regular: bool = True) -> Answers:
        """Draw the candidate's answers in a night, 0 for the run that is signed off.

        Args:
            number: of the night.
            is_regular: whether it is neither a retry nor made to confirm an alarm.
        """
        lost = self._lost(number) + (self._lost_once(number) if is_regular else 0.0)
        return {
            task: self._answers(items, number, lost=lost if task == LOSING else 0.0)
            for task, items in self._tasks.items()
        }

    def load_s(self) -> float:
        """Draw how long the server takes to load."""
        return LOAD_S * float(np.exp(self._draws.normal(0, LOAD_NOISE)))

    def _lost(self, number: int) -> float:
        plan = self.plan
        if plan.waived:
            return _WAIVED_LOSS
        if number < plan.since or not number:
            return 0.0
        return plan.sudden + plan.slow * (number - plan.since + 1)

    def _lost_once(self, number: int) -> float:
        """Return what the bad night loses: the first from which anything is known."""
        if self.plan.bad and number >= self.plan.since and self.bad_night is None:
            self.bad_night = number
            return self.plan.bad
        return 0.0

    def _items(self, size: int) -> _Items:
        draws, plan = self._draws, self.plan
        is_unstable = draws.random(size) < 2 * plan.flips
        baseline = draws.random(size) < np.where(is_unstable, 0.5, _BASELINE_RIGHT)
        steady = baseline ^ (draws.random(size) < _FLIPPED_BY_QUANTIZATION)
        is_changed = _as_often_either_way(
            steady & ~is_unstable, ~steady & ~is_unstable, plan, draws
        )
        losable = np.flatnonzero(steady & ~is_unstable & ~is_changed)
        return _Items(baseline, steady, is_unstable, is_changed, draws.permutation(losable))

    def _answers(self, items: _Items, number: int, *, lost: float) -> Values:
        found = self._by_chance(items, items.steady)
        if self.plan.changed and number >= self.plan.since:
            found ^= items.is_changed
        found[items.losable[: round(lost * len(found))]] = False
        return found

    def _by_chance(self, items: _Items, otherwise: Values) -> Values:
        by_chance = self._draws.random(len(otherwise)) < 0.5  # noqa: PLR2004 - right or wrong
        return np.where(items.is_unstable, by_chance, otherwise)


def _as_often_either_way(
    right: Values, wrong: Values, plan: Plan, draws: np.random.Generator
) -> Values:
    """Return which items change once: as many that were right as were wrong."""
    chosen = np.zeros(len(right), dtype=bool)
    number = round(plan.changed * len(right) / 2)
    for group in (right, wrong):
        places = np.flatnonzero(group)
        chosen[draws.permutation(places)[:number]] = True
    return chosen
