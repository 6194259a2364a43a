"""A task asked in parts, so that somebody may look at the answers before all of them are there.

Which items come first is drawn with the suite's seed: benchmarks are sorted, by subject or by how
hard they are, and their beginning is no sample of them.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

from harness.artifacts import EarlyEnd, Sample, TaskSpec
from harness.score.prepare import Tasks


class Watch(Protocol):
    """Who looks at the candidate's answers while it is asked."""

    def order(self, tasks: Sequence[Sequence[TaskSpec]]) -> Sequence[Sequence[TaskSpec]]:
        """Return the tasks, each with its metrics, in the order in which they are to be asked."""

    def looks(self, specs: Sequence[TaskSpec]) -> tuple[int, ...]:
        """Return after how many items it wants to look, before the last one."""

    def see(
        self, spec: TaskSpec, samples: Sequence[Sample], looks: Sequence[int]
    ) -> EarlyEnd | None:
        """Return the end, if there is nothing more to be asked; not what is left unasked by it."""


class Part(NamedTuple):
    """Items of one task that are asked together."""

    ids: Mapping[str, frozenset[int]]
    """Numbers of the items, by member of the task."""
    offsets: Mapping[str, int]
    """What is added to a member's numbers to count through the task."""

    @property
    def num_items(self) -> int:
        """Return how many there are."""
        return sum(map(len, self.ids.values()))


def parts_of(spec: TaskSpec, tasks: Tasks, looks: Sequence[int], *, seed: int) -> tuple[Part, ...]:
    """Return a task's items in parts that end where somebody looks, the last one at the end."""
    numbers = {name: sorted({r.doc_id for r in task.instances}) for name, task in tasks.items()}
    # A member counts on where the one before ends; members may have different numbers of items.
    starts = accumulate(map(len, numbers.values()), initial=0)
    offsets = dict(zip(numbers, starts, strict=False))
    every = [(name, number) for name, of_member in numbers.items() for number in of_member]
    if looks:
        random.Random(f"{seed} {spec.name}").shuffle(every)  # noqa: S311  an order is no secret
    ends = (0, *looks, len(every))
    return tuple(Part(_by_member(every[first:last]), offsets) for first, last in pairwise(ends))


def requests_of(tasks: Tasks, part: Part) -> list[Any]:
    """Return lm-eval's requests of a part, in the order in which it asks them."""
    return [
        request
        for name, ids in _in_order(tasks, part)
        for request in tasks[name].instances
        if request.doc_id in ids
    ]


@contextmanager
def only(tasks: Tasks, part: Part) -> Iterator[Tasks]:
    """Let lm-eval ask and score a part alone, with nothing in it from another time."""
    before = {name: (task.instances, task.doc_iterator) for name, task in tasks.items()}
    try:
        for name, ids in part.ids.items():
            requests, documents = before[name]
            tasks[name]._instances = [r for r in requests if r.doc_id in ids]  # noqa: SLF001 -- lm-eval has no other way in
            tasks[name].doc_iterator = _chosen(documents, ids)
            for request in tasks[name].instances:
                request.resps, request.filtered_resps = [], {}
        yield {name: tasks[name] for name, _ in _in_order(tasks, part)}
    finally:
        for name, (requests, documents) in before.items():
            tasks[name]._instances, tasks[name].doc_iterator = requests, documents  # noqa: SLF001


def _chosen(documents: Any, ids: frozenset[int]) -> Any:  # noqa: ANN401 -- lm-eval has no types
    def iterate(**how: object) -> Iterator[tuple[int, Any]]:
        return (pair for pair in documents(**how) if pair[0] in ids)

    return iterate


def _in_order(tasks: Tasks, part: Part) -> list[tuple[str, frozenset[int]]]:
    return [(name, part.ids[name]) for name in tasks if part.ids.get(name)]


def _by_member(items: Sequence[tuple[str, int]]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for name, number in items:
        found.setdefault(name, set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}
