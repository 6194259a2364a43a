"""What a group's YAML says: its members, and what lm-eval would lay over them.

Every key of a group that is not a group's own, and every key of a member that is written as a
mapping, replaces that key in the member's file as the member is loaded: its metrics, its items,
its templates. None of that is in the member's file, which is what is checked and hashed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_OF_A_GROUP = frozenset(
    {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag"}
)
_OF_A_TASK = frozenset({"task", "task_alias"})
_OF_A_KNOWN_GROUP = frozenset({"group"})


def as_list(value: object) -> list[object]:
    """Return what may be one value, several or none as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def members_of(group: Mapping[str, Any]) -> Iterator[str]:
    """Yield all names that a group may stand for.

    That of a group written out in it is one, for lm-eval takes a group that is known by it instead.
    """
    for member in as_list(group.get("task")):
        if not isinstance(member, Mapping):
            yield str(member)
        elif "group" in member:
            yield str(member["group"])
            yield from members_of(member)
        else:
            yield str(member.get("task"))


def written_members(group: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the members that are mappings, those of groups that are written out included."""
    for member in as_list(group.get("task")):
        if isinstance(member, Mapping):
            yield member
            if "group" in member:
                yield from written_members(member)


def mistakes_of_group(group: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield what a group may not say, each as the end of a sentence about it.

    Args:
        group: what its file says, or the mapping that it is written as within another.
        where: which group within it this is.
    """
    members = group.get("task")
    if not isinstance(members, list):
        yield (
            f"has task: {members!r:.60}{where}, no list of members. Write 'task: [NAME, ...]'; a "
            "task that is asked for with others under one name has 'tag: NAME' and no group."
        )
        return
    yield from _other_keys(group, _OF_A_GROUP, where)
    yield from _aggregations(group.get("aggregate_metric_list"), where)
    for member in members:
        yield from _mistakes_of_member(member, where)


def _mistakes_of_member(member: object, where: str) -> Iterator[str]:
    if isinstance(member, Mapping) and isinstance(name := member.get("group"), str):
        within = f" in its group '{name}'"
        if "task" in member:
            yield from mistakes_of_group(member, within)
        else:
            yield from _other_keys(member, _OF_A_KNOWN_GROUP, within)
    elif isinstance(member, Mapping) and isinstance(name := member.get("task"), str):
        yield from _other_keys(member, _OF_A_TASK, f" at its member '{name}'")
    elif not isinstance(member, str):
        yield f"has the member {member!r:.60}{where}, which is no name. Write '- NAME'."


def _other_keys(values: Mapping[str, Any], known: frozenset[str], where: str) -> Iterator[str]:
    for key in values:
        if key not in known:
            yield (
                f"has the key '{key}'{where}, which lm-eval would lay over its members, where "
                "nothing checks it. Write it in the members' own files, or include it there."
            )


def _aggregations(listed: object, where: str) -> Iterator[str]:
    for entry in as_list(listed):
        aggregation = entry.get("aggregation", "mean") if isinstance(entry, Mapping) else None
        if aggregation != "mean":
            yield (
                f"has {entry!r:.60} in its aggregate_metric_list{where}. Write '- metric: NAME' "
                "and 'aggregation: mean', which is all that lm-eval has for groups."
            )
