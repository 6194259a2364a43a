"""Which data set each task of a suite asks from, as lm-eval's index says; nothing is loaded."""

from collections.abc import Mapping
from typing import NamedTuple

from harness.artifacts import Suite
from harness.score.sources import Catalog


class DataSet(NamedTuple):
    """Where the items of a task come from."""

    name: str
    """On the Hub, such as `openai/gsm8k`; `local/TASK` for items that lie beside the task."""
    config: str
    """Of the data set; `default` where it has one only."""
    split: str
    is_on_hub: bool


def data_sets_of(suite: Suite) -> Mapping[str, DataSet]:
    """Return the data set of each task; of a group that of its members, if they have one."""
    catalog = Catalog(suite.tasks_from)
    return {spec.name: _of_task(catalog, spec.asked) for spec in suite.tasks}


def _of_task(catalog: Catalog, task: str) -> DataSet:
    leaves = catalog.leaves(task)
    found = {_of_leaf(catalog, leaf) for leaf in leaves}
    if len({one.name for one in found}) != 1:  # none is known, or members have several
        return DataSet(f"local/{task}", "default", "test", is_on_hub=False)
    first = min(found)
    same = len(found) == 1
    return first if same else first._replace(config="default")


def _of_leaf(catalog: Catalog, leaf: str) -> DataSet:
    config = catalog.config(leaf)
    split = str(config.get("test_split") or config.get("validation_split") or "test")
    name = config.get("dataset_path")
    if not isinstance(name, str) or catalog.is_local(leaf):
        return DataSet(f"local/{leaf}", "default", split, is_on_hub=False)
    return DataSet(name, str(config.get("dataset_name") or "default"), split, is_on_hub=True)
