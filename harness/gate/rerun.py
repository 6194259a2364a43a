"""How often the baseline answers otherwise when it is asked again (A/A).

The second run may hold fewer items, and on the in-process engine other batches, on purpose; so
items are matched by what they are, not by where they stand, and nothing is refused.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from harness.artifacts import Arm, Sample

_Item = tuple[str, str, str, int]


class Flips(NamedTuple):
    """Items that both runs answered, and those of them that were scored otherwise."""

    num_items: int
    num_flips: int

    @property
    def rate(self) -> float | None:
        """Return the share that flipped; None where there is nothing to compare."""
        return self.num_flips / self.num_items if self.num_items else None


def count_flips(baseline: Arm, rerun: Arm) -> Mapping[str, Flips]:
    """Return the flips between two runs of one model, by task; a perplexity has none."""
    return {
        task: _count(baseline.samples.get(task, ()), samples)
        for task, samples in rerun.samples.items()
        if all(sample.weight is None for sample in samples)
    }


def sum_flips(flips: Iterable[Flips]) -> Flips:
    """Return the flips of all tasks together."""
    counted = list(flips)
    return Flips(sum(f.num_items for f in counted), sum(f.num_flips for f in counted))


def _count(first: Iterable[Sample], again: Iterable[Sample]) -> Flips:
    known = dict(_named(first))
    pairs = [(known[item], sample) for item, sample in _named(again) if item in known]
    answered = [(a, b) for a, b in pairs if a.is_known and b.is_known]
    return Flips(len(answered), sum(a.value != b.value for a, b in answered))


def _named(samples: Iterable[Sample]) -> Iterator[tuple[_Item, Sample]]:
    """Yield each sample with its identity; items that are alike are told apart by their order."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for sample in samples:
        item = sample.doc_hash, sample.prompt_hash, sample.target_hash
        yield (*item, seen[item]), sample
        seen[item] += 1
