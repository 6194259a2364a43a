"""Where good becomes bad: what to run next, and what follows. Nothing is run here.

Both ends are run first, each several times: ends that do not differ, or that differ from time to
time, are no matter of commits, engines or files, and nothing is searched. Then the axes are turned
from their good to their bad end one after another, in the order in which causes are ruled out most
cheaply, until the result turns bad: that axis is halved until the first bad point is found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What one run says."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"
    """Nothing: it could not be run, or was INCONCLUSIVE."""


class Ending(StrEnum):
    """How a bisect ends."""

    FOUND = "first-bad-found"
    AMONG = "first-bad-is-one-of"
    """Those between could not be run."""
    ALIKE = "ends-do-not-differ"
    FLAKY = "an-end-is-flaky"
    NOT_RUN = "an-end-does-not-run"


Place = tuple[int, ...]
"""Which point of each axis; 0 is the good end."""
Observe = Callable[[Place, int], Outcome]
"""Says what a run at a place gives; the number tells repeats apart, from 1 on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the search found."""

    ending: Ending
    axis: int | None = None
    """Which axis holds the first bad point."""
    suspects: tuple[int, ...] = ()
    """Its points that may be the first bad one; one where it is found."""
    last_good: Place | None = None
    first_bad: Place | None = None
    """The first that was seen to be bad."""
    said: str = ""
    """What the ends gave, where they end the search."""


def search(lengths: Sequence[int], observe: Observe, *, repeats: int) -> Answer:
    """Find the first bad point.

    Args:
        lengths: number of points of each axis, at least 2 each.
        observe: runs something, or remembers that it was run.
        repeats: times that each end is run.
    """
    good, bad = tuple(0 for _ in lengths), tuple(n - 1 for n in lengths)
    refused = _ends(observe, good, bad, repeats)
    if refused is not None:
        return refused
    before, skipped = good, False
    for axis, length in enumerate(lengths):
        turned = (*before[:axis], length - 1, *before[axis + 1 :])
        outcome = Outcome.BAD if turned == bad else observe(turned, 1)
        if outcome is Outcome.BAD and not skipped:
            return _halve(observe, turned, axis)
        if outcome is Outcome.BAD:
            return Answer(ending=Ending.AMONG, last_good=good, first_bad=turned)
        skipped = skipped or outcome is Outcome.SKIP
        before = turned
    raise AssertionError(lengths)  # the last turn is the bad end


def _ends(observe: Observe, good: Place, bad: Place, repeats: int) -> Answer | None:
    """Run both ends, and return why nothing is to be searched, if so."""
    seen = {
        name: [observe(place, number) for number in range(1, repeats + 1)]
        for name, place in (("good", good), ("bad", bad))
    }
    said = "; ".join(f"the {name} end gave {', '.join(given)}" for name, given in seen.items())
    if any(Outcome.SKIP in given for given in seen.values()):
        return Answer(ending=Ending.NOT_RUN, said=said)
    if any(len(set(given)) > 1 for given in seen.values()):
        return Answer(ending=Ending.FLAKY, said=said)
    if seen["good"][0] is not Outcome.GOOD or seen["bad"][0] is not Outcome.BAD:
        return Answer(ending=Ending.ALIKE, said=said)
    return None


def _halve(observe: Observe, bad: Place, axis: int) -> Answer:
    """Halve one axis, between its good end and a place that is bad; go around what is skipped."""

    def at(point: int) -> Place:
        return (*bad[:axis], point, *bad[axis + 1 :])

    low, high = 0, bad[axis]
    skipped: set[int] = set()
    while between := [point for point in range(low + 1, high) if point not in skipped]:
        middle = min(between, key=lambda point: abs(2 * point - low - high))
        outcome = observe(at(middle), 1)
        if outcome is Outcome.GOOD:
            low = middle
        elif outcome is Outcome.BAD:
            high = middle
        else:
            skipped.add(middle)
    suspects = tuple(range(low + 1, high + 1))
    return Answer(
        ending=Ending.FOUND if len(suspects) == 1 else Ending.AMONG,
        axis=axis,
        suspects=suspects,
        last_good=at(low),
        first_bad=at(high),
    )
