"""How many items each member of a group gives.

Members give the same number, as lm-eval's `limit` has it; one that has fewer gives all. So a group
is asked in whole by the number of all its items, whatever the members' sizes are, and its score is
the mean over items: lm-eval's, which weights members by their size. A group that weights all
members alike (`weight_by_size: false`) has the same score only where all give the same number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.artifacts import TaskSpec
from harness.errors import SuiteError
from harness.score.local_data import read_local_splits
from harness.score.sources import Catalog


def sizes_of(catalog: Catalog, name: str) -> Sequence[int] | None:
    """Return how many items each member of a task or group has; None where that is not known.

    Items that lie elsewhere are not known before they are loaded, nor those that a task's own code
    makes of others. What is wrong with a file is told where it is read.
    """
    sizes = [_size_of(catalog, leaf) for leaf in catalog.leaves(name)]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def _size_of(catalog: Catalog, leaf: str) -> int | None:
    config = catalog.config(leaf)
    split = config.get("test_split") or config.get("validation_split")
    if split is None or config.get("process_docs") or not catalog.is_local(leaf):
        return None
    try:
        splits = read_local_splits(catalog.entry(leaf).yaml_path.parent, config)
    except SuiteError:
        return None
    return len(splits[str(split)]) if str(split) in splits else None


def limit_of(spec: TaskSpec, sizes: Sequence[int]) -> int:
    """Return how many items each member gives at most.

    Args:
        spec: says how many items are asked in all.
        sizes: items that each member has.

    Raises:
        SuiteError: no limit gives that number, with the nearest numbers that one gives.
    """
    limit = most_of_each(spec, sizes)
    if _total(limit, sizes) == spec.items:
        return limit
    raise SuiteError(_message(spec, sizes, limit))


def most_of_each(spec: TaskSpec, sizes: Sequence[int]) -> int:
    """Return the least limit that gives at least as many items as are asked, or all there are."""
    low, high = 1, max([*sizes, 1])
    while low < high:
        middle = (low + high) // 2
        if _total(middle, sizes) < spec.items:
            low = middle + 1
        else:
            high = middle
    return low


def check_weights(spec: TaskSpec, config: Mapping[str, Any], sizes: Sequence[int]) -> None:
    """Refuse a group whose members count alike and are not asked alike.

    Args:
        spec: says how many items are asked in all.
        config: of the group.
        sizes: items that each member has.

    Raises:
        SuiteError: as limit_of; or with the largest number of items that all members can give.
    """
    limit = limit_of(spec, sizes)
    if limit <= min(sizes) or not _counts_alike(config, spec.metric):
        return
    most = min(sizes) * len(sizes)
    message = (
        f"task '{spec.name}' is a group whose members count alike (weight_by_size: false), and "
        f"{spec.items} items are not the same number of each. Set items to at most {most}."
    )
    raise SuiteError(message)


def _counts_alike(config: Mapping[str, Any], metric: str) -> bool:
    listed = config.get("aggregate_metric_list") or ()
    entries = [listed] if isinstance(listed, Mapping) else listed
    return any(
        entry.get("weight_by_size") is False
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("metric") == metric
    )


def _total(limit: int, sizes: Sequence[int]) -> int:
    return sum(min(limit, size) for size in sizes)


def _message(spec: TaskSpec, sizes: Sequence[int], limit: int) -> str:
    if len(sizes) == 1:
        return (
            f"task '{spec.name}' has {sizes[0]} items, the suite asks for {spec.items}. "
            f"Set items to at most {sizes[0]}."
        )
    below, above = _total(limit - 1, sizes), _total(limit, sizes)
    near = sorted({number for number in (below, above) if number})
    return (
        f"task '{spec.name}' is a group of {len(sizes)} tasks, which give the same number of items "
        f"each (those that have fewer give all), {sum(sizes)} in all. {spec.items} cannot be had "
        f"so: set items to {' or '.join(map(str, near))}."
    )
