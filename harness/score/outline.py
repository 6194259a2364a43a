"""What a task says of itself, for a suite that is not written yet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

from harness.artifacts import Scale, Suite, TaskSpec, Tier
from harness.errors import SuiteError
from harness.score.metrics import BRIER, scale_of
from harness.score.prepare import load_tasks
from harness.score.shapes import shapes_of
from harness.score.sources import Catalog

_PREFERRED = ("exact_match", "acc", "acc_norm")
_GENERATED = "generate_until"
_CHOICE = "multiple_choice"
_LOOKED_AT = 10_000
"""Items whose choices are counted."""


class Outline(NamedTuple):
    """A task's own numbers."""

    spec: TaskSpec
    """With all items; tier, margin and flip rate stand in for what is not measured yet."""
    num_items: int
    """That there are."""
    chance_reason: str
    """Where the accuracy of guessing is from."""


def outlines_of(
    names: Sequence[str], suite: Suite, *, most: int | None = None
) -> tuple[Outline, ...]:
    """Return what each task says of its metric, filter, items, shots and choices.

    Args:
        names: of tasks.
        suite: whose folders of own tasks are looked in.
        most: items of a task at most.

    Raises:
        SuiteError: a task does not exist, or its items cannot be had.
    """
    catalog = Catalog(suite.tasks_from)
    return tuple(_outline(catalog, suite, name, most) for name in names)


def first_spec(name: str, config: Mapping[str, Any]) -> TaskSpec:
    """Return a task as a suite would ask it, with one item.

    Raises:
        SuiteError: it has no metric of single items between 0 and 1.
    """
    kind = str(config.get("output_type", _GENERATED))
    listed = config.get("metric_list")
    metrics = [str(m["metric"]) for m in listed] if listed else list(DEFAULT_METRIC_REGISTRY[kind])
    shares = [m for m in metrics if m != BRIER and scale_of(m, config) is Scale.SHARE]
    if not shares:
        message = (
            f"task '{name}' has no metric between 0 and 1 of each item, only {', '.join(metrics)}. "
            "Leave it out, and write it into the suite by hand with a relative_margin."
        )
        raise SuiteError(message)
    filters = [str(f["name"]) for f in config.get("filter_list") or [{"name": "none"}]]
    return TaskSpec(
        name=name,
        tier=Tier.ADVISORY,
        metric=next((metric for metric in _PREFERRED if metric in shares), shares[0]),
        filter=filters[-1],
        items=1,
        margin=0.5,
        flip_rate=0.5,
        num_fewshot=int(config.get("num_fewshot") or 0),
        chance=0.0,
    )


def first_specs(names: Sequence[str], folders: Sequence[str]) -> tuple[TaskSpec, ...]:
    """Return the tasks as a suite would ask them, with one item each.

    One that is unknown or malformed is there as well, so that `mistakes_of` can say what is wrong.

    Raises:
        SuiteError: one has no metric of single items between 0 and 1.
    """
    catalog = Catalog(folders)
    return tuple(first_spec(name, _sound_config(catalog, name)) for name in dict.fromkeys(names))


def tasks_in(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks of own folders, without groups."""
    own = Catalog(folders).own
    return tuple(name for name, d in sorted(own.definitions.items()) if not d.is_group)


def _sound_config(catalog: Catalog, name: str) -> Mapping[str, Any]:
    """Return the configuration that a name stands for; empty where it cannot be taken as it is."""
    leaves = catalog.leaves(name)
    own = [definition.config for definition in catalog.own.of(name) if not definition.is_group]
    if not leaves or any(True for config in own for _ in shapes_of(config)):
        return {}
    config = catalog.config(leaves[0])
    return config if config.get("output_type", _GENERATED) in DEFAULT_METRIC_REGISTRY else {}


def _config_of(catalog: Catalog, name: str) -> Mapping[str, Any]:
    """Return the configuration of the first task that a name stands for.

    Raises:
        SuiteError: it stands for none.
    """
    leaves = catalog.leaves(name)
    if not leaves:
        message = f"unknown task: '{name}'. Own tasks are found in the folders of --tasks-from."
        raise SuiteError(message)
    return catalog.config(leaves[0])


def _outline(catalog: Catalog, suite: Suite, name: str, most: int | None) -> Outline:
    spec = first_spec(name, _config_of(catalog, name))
    tasks = load_tasks(catalog, suite, spec)
    sizes = [len(task.eval_docs) for task in tasks.values()]
    found = min(sizes) * len(sizes)
    items = found if most is None else max(min(found, most) // len(sizes), 1) * len(sizes)
    chance, why = _chance(list(tasks.values()))
    spec = replace(spec, items=items, chance=chance)
    return Outline(spec=spec, num_items=found, chance_reason=why)


def _chance(tasks: Sequence[Any]) -> tuple[float, str]:
    """Return the accuracy of guessing, to be at most that, and why it is."""
    shares = [
        1 / max(len(task.doc_to_choice(document)), 1)
        for task in tasks
        if task.OUTPUT_TYPE == _CHOICE
        for document, _ in zip(task.eval_docs, range(_LOOKED_AT), strict=False)
    ]
    if not shares:
        return 0.0, "answers are written, so that guessing gets nothing"
    chance = round(sum(shares) / len(shares), 4)
    least, most = round(1 / max(shares)), round(1 / min(shares))
    number = f"{least}" if least == most else f"{least} to {most}"
    return chance, f"one of {number} choices"
