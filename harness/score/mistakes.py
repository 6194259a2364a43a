"""Everything that is wrong with a suite's tasks, found at once and without a model.

What a task's file says is looked at first, then every item that is asked, then lm-eval builds all
prompts of the tasks that nothing was found in, as a trial.
"""

from collections.abc import Callable, Iterator
from functools import partial

from harness.artifacts import Suite, TaskSpec
from harness.errors import HarnessError, SuiteError
from harness.score.catalog import (
    check_asked,
    check_members,
    check_shares,
    check_thinking,
)
from harness.score.definitions import mistakes_of_definition, refusals_to_load
from harness.score.items import mistakes_of_items
from harness.score.local_data import read_local_splits
from harness.score.metrics import nearest_to
from harness.score.prepare import try_prompts
from harness.score.shapes import shapes_of
from harness.score.shares import most_of_each, sizes_of
from harness.score.sources import Catalog, lm_eval_file_of
from harness.tasks import written_members


def mistakes_of(suite: Suite) -> tuple[SuiteError, ...]:
    """Return what is wrong with a suite's tasks, each with what to do; empty where nothing is.

    Raises:
        SuiteError: a folder of tasks is gone.
    """
    catalog = Catalog(suite.tasks_from)
    lines = list(_raised(partial(check_thinking, suite)))
    for spec in suite.of_lm_eval:
        found = list(_of_task(catalog, suite, spec))
        lines += found or _raised(partial(try_prompts, catalog, suite, spec))
    return tuple(SuiteError(line) for line in dict.fromkeys(lines))


def _of_task(catalog: Catalog, suite: Suite, spec: TaskSpec) -> Iterator[str]:
    # What hides which task is meant is told alone.
    for check in (_of_groups, _of_names, _clashes, _of_written_members):
        found = list(check(catalog, spec))
        yield from found
        if found:
            return
    tasks = [definition for definition in catalog.own.of(spec.asked) if not definition.is_group]
    for definition in tasks:
        yield from mistakes_of_definition(definition, spec, task_code=suite.task_code)
    if any(True for definition in tasks for _ in shapes_of(definition.config)):
        return
    yield from _raised(partial(check_members, catalog, spec))
    yield from _raised(partial(check_shares, catalog, spec))
    for leaf in catalog.leaves(spec.asked):
        yield from _raised(partial(check_asked, spec, catalog.config(leaf), suite))
        if catalog.is_local(leaf):
            yield from _of_items(catalog, spec, leaf)


def _of_groups(catalog: Catalog, spec: TaskSpec) -> Iterator[str]:
    """Yield what own groups would lay over their members, or run."""
    for group in catalog.own.of(spec.asked):
        for what in refusals_to_load(group, task_code=True) if group.is_group else ():
            yield f"group '{group.name}' ('{group.file}') {what}"


def _of_names(catalog: Catalog, spec: TaskSpec) -> Iterator[str]:
    """Yield which names mean nothing, or two things."""
    broken = list(catalog.own.problems_of([spec.asked]))
    yield from broken
    if broken:
        return
    strangers = catalog.strangers(spec.asked)
    if catalog.entry(spec.asked) is None:
        yield _unknown(catalog, spec.asked)
        return
    for stranger in strangers:
        yield (
            f"the group '{spec.asked}' has the member '{stranger}', which is defined nowhere, "
            f"or is the group itself.{nearest_to(stranger, catalog.names())}"
        )


def _clashes(catalog: Catalog, spec: TaskSpec) -> Iterator[str]:
    """Yield which own tasks and tags are called like what everybody has, wherever it is asked."""
    for name in catalog.names_behind(spec.asked):
        owners = [catalog.own.definitions[one] for one in catalog.own.named(name)]
        theirs = "one that ships with harness" if name in catalog.shipped else ""
        if owners and not theirs and (file := lm_eval_file_of(name)):
            theirs = f"one of lm-eval ('{file}')"
        for definition in owners if theirs else ():
            what = f"own task '{name}'" if definition.name == name else f"tag '{name}' of own tasks"
            yield (
                f"the {what} ('{definition.file}') is called like {theirs}. Rename it "
                "in its file and in the suite, so that scores cannot be taken for the other's."
            )


def _of_written_members(catalog: Catalog, spec: TaskSpec) -> Iterator[str]:
    """Yield which members of own groups lm-eval takes for something else than they say."""
    for group in catalog.own.of(spec.asked):
        for member in written_members(group.config) if group.is_group else ():
            who = f"group '{group.name}' ('{group.file}')"
            name = str(member.get("group", member.get("task")))
            if "group" in member and "task" in member:
                if catalog.own.named(name) or name in catalog.shipped or lm_eval_file_of(name):
                    yield (
                        f"{who} has a group '{name}' in it, which is called like one that is "
                        "defined elsewhere, and lm-eval would ask that. Rename it."
                    )
            elif "task" in member and catalog.stands_for_several(name):
                yield (
                    f"{who} has the member 'task: {name}', which is a group or a tag: lm-eval "
                    f"would call all its tasks '{name}'. Write '- {name}'."
                )


def _of_items(catalog: Catalog, spec: TaskSpec, leaf: str) -> Iterator[str]:
    entry, config = catalog.entry(leaf), catalog.config(leaf)
    asked = config.get("test_split") or config.get("validation_split")
    definition = catalog.own.definitions.get(leaf)
    if asked is None or (definition is not None and not definition.data_files()):
        return  # told of its file
    try:
        splits = read_local_splits(entry.yaml_path.parent, config)
    except SuiteError as error:
        yield str(error)
        return
    sizes = sizes_of(catalog, spec.asked)
    items = most_of_each(spec, sizes or [spec.items] * len(catalog.leaves(spec.asked)))
    yield from mistakes_of_items(leaf, config, spec, splits, items=items)


def _unknown(catalog: Catalog, name: str) -> str:
    for definition in catalog.own.definitions.values():
        if definition.file.stem == name:
            return (
                f"unknown task: '{name}'. '{definition.file}' defines '{definition.name}'. Write "
                f"'name: {definition.name}' in the suite, or 'task: {name}' in that file."
            )
    own = "" if catalog.own.folders else " Own tasks are found with tasks_from, or --tasks DIR."
    return f"unknown task: '{name}'.{nearest_to(name, catalog.names())}{own}"


def _raised(check: Callable[[], object]) -> Iterator[str]:
    """Yield what a check complains of; an engine's or lm-eval's own failure is a complaint too."""
    try:
        check()
    except HarnessError as error:
        yield str(error)
