"""Load the data sets of a suite, so that their libraries keep them."""

from harness.artifacts import Suite
from harness.errors import SuiteError
from harness.score.prepare import load_tasks
from harness.score.sources import Catalog


def load_data_sets(suite: Suite) -> tuple[str, ...]:
    """Load the data of every task that is not local, and return the names of these tasks.

    Raises:
        SuiteError: data cannot be had, or NeMo Evaluator asks a task, which loads its own.
    """
    if suite.of_nel:
        named = ", ".join(task.name for task in suite.of_nel)
        message = (
            f"NeMo Evaluator loads the data of {named} itself, and harness does not know where "
            "it keeps them. Leave them out of the suite that is fetched."
        )
        raise SuiteError(message)
    catalog = Catalog(suite.tasks_from)
    loaded = []
    for spec in suite.tasks:
        leaves = catalog.leaves(spec.asked)
        if not all(catalog.is_local(leaf) for leaf in leaves):
            load_tasks(catalog, suite, spec)
            loaded.append(spec.name)
    return tuple(loaded)
