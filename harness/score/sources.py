"""Where tasks come from: own folders, those that ship with harness, lm-eval's own.

lm-eval's index of 14,000 names takes seconds to build, so it is built only for a suite that needs
it. Nothing here touches the network or loads a data set.
"""

import functools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from harness import shipped
from harness.tasks import BUILDERS, Definition, OwnTasks, members_of, read_own_tasks

LM_EVAL_TASKS = Path(lm_eval.tasks.__file__).resolve().parent


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Keep lm-eval's log lines out of ours; what it warns of is checked or recorded here."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class Catalog:
    """What lm-eval knows of: own tasks, those that ship, and its own behind them."""

    def __init__(self, tasks_from: Sequence[str] = ()) -> None:
        self.own: OwnTasks = read_own_tasks([Path(folder) for folder in tasks_from])
        with quiet_lm_eval():
            shipped_ones = TaskManager(include_path=str(shipped.tasks()), include_defaults=False)
        self._shipped: Mapping[str, Entry] = shipped_ones.task_index
        self.shipped = frozenset(self._shipped)
        self._index = self._indexed(self.own.definitions.values())

    def manager(self, name: str) -> Any:  # noqa: ANN401 -- lm-eval has no types
        """Return a TaskManager that knows `name` and all that it stands for.

        Of own tasks it knows those behind `name` alone: lm-eval takes a member of its groups from
        what it knows by that name, so any other would be run in place of lm-eval's, unseen.
        """
        index = self._indexed(self.own.of(name))
        if name not in index or not all(leaf in index for leaf in self.leaves(name)):
            index = {**_lm_eval_tasks().task_index, **index}
        with quiet_lm_eval():
            made = TaskManager(include_defaults=False)
        made.task_index.update(index)
        return made

    def _indexed(self, own: Iterable[Definition]) -> dict[str, Entry]:
        """Return lm-eval's index of what ships and of own tasks."""
        copied = {name: replace(one, tags={*one.tags}) for name, one in self._shipped.items()}
        for definition in own:
            with quiet_lm_eval(), suppress(Exception):  # what it raises is told as a mistake
                config = load_yaml(definition.file, resolve_func=False)
                TaskIndex.process_cfg(config, definition.file, copied)
        return copied

    def entry(self, name: str) -> Any:  # noqa: ANN401 -- lm-eval has no types
        """Return lm-eval's index entry of a task or group; None if there is none."""
        near = self._index.get(name)
        return near if near is not None else _lm_eval_tasks().task_index.get(name)

    def names_behind(self, name: str) -> tuple[str, ...]:
        """Return all names that lm-eval looks up for `name`: it, its members, their members."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            entry = self.entry(one) if one not in found else None
            found.add(one)
            if entry is not None:
                waiting += entry.tags if entry.kind is Kind.TAG else ()
                waiting += members_of(entry.cfg or {}) if entry.kind is Kind.GROUP else ()
        return tuple(sorted(found))

    def config(self, name: str) -> Mapping[str, Any]:
        """Return what a task's YAML says; functions are texts."""
        entry = self.entry(name)
        return (entry.cfg or {}) if entry is not None else {}

    def is_local(self, name: str) -> bool:
        """Return whether the task `name` is own or ships, and reads files beside its own."""
        entry = self._index.get(name)
        if entry is None or entry.yaml_path is None or _is_lm_evals(entry.yaml_path):
            return False
        return (entry.cfg or {}).get("dataset_path") in BUILDERS

    def stands_for_several(self, name: str) -> bool:
        """Return whether `name` is a group or a tag."""
        entry = self.entry(name)
        return entry is not None and entry.kind in {Kind.GROUP, Kind.TAG}

    def leaves(self, name: str) -> tuple[str, ...]:
        """Return the tasks that `name` stands for: itself, or the members of the group."""
        found = self._walked(name, within=())
        return tuple(leaf for leaf, is_known in found if is_known)

    def strangers(self, name: str) -> tuple[str, ...]:
        """Return the members of a group, or of groups in it, that are defined nowhere."""
        return tuple(leaf for leaf, is_known in self._walked(name, within=()) if not is_known)

    def _walked(self, name: str, *, within: tuple[str, ...]) -> list[tuple[str, bool]]:
        entry = self.entry(name)
        if entry is None or name in within:
            return [(name, False)]
        if entry.tags and not entry.cfg:
            return [(tag, True) for tag in sorted(entry.tags)]
        members = (entry.cfg or {}).get("task")
        if isinstance(members, str) and "group" in (entry.cfg or {}):
            members = [members]
        if not isinstance(members, list):
            return [(name, True)]
        inside = (*within, name)
        return [leaf for one in _names(members) for leaf in self._walked(one, within=inside)]

    def names(self) -> list[str]:
        """Return every known name."""
        return [*self._index, *_lm_eval_tasks().all_tasks]


@functools.cache
def lm_eval_file_of(name: str) -> Path | None:
    """Return the file in which lm-eval defines a task, group or tag; None where it does not.

    The 14,000 files are searched for the name as text first, in a fraction of a second, and only
    those that hold it are read.
    """
    pattern = re.compile(rb"(?<![\w.-])" + re.escape(name.encode()) + rb"(?![\w.-])")
    for folder, _, files in os.walk(LM_EVAL_TASKS):
        for file in files:
            path = Path(folder, file)
            if path.suffix != ".yaml" or not pattern.search(path.read_bytes()):
                continue
            found: dict[str, Any] = {}
            with quiet_lm_eval(), suppress(Exception):
                TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, found)
            if name in found:
                return path
    return None


def _names(members: list[Any]) -> Iterator[str]:
    """Yield the names in a group's list; a group that is written out there gives its own."""
    for member in members:
        if isinstance(member, str):
            yield member
        elif (
            isinstance(member, dict) and "group" in member and isinstance(member.get("task"), list)
        ):
            yield from _names(member["task"])
        elif isinstance(member, dict):
            yield str(member.get("task") or member.get("group"))
        else:
            yield str(member)


@functools.cache
def _lm_eval_tasks() -> Any:  # noqa: ANN401 -- lm-eval has no types
    with quiet_lm_eval():
        return TaskManager()


def _is_lm_evals(file: Path) -> bool:
    return Path(file).resolve().is_relative_to(LM_EVAL_TASKS)
