"""A group of tasks in parts: items are drawn over all members and keep their places."""

from types import SimpleNamespace
from typing import Any

from harness.score.parts import only, parts_of, requests_of
from tests.nouns import task_spec

SPEC = task_spec("group", items=16)


def member(items: int) -> Any:  # noqa: ANN401 -- lm-eval has no types
    requests = [SimpleNamespace(doc_id=i, resps=["old"], filtered_resps={}) for i in range(items)]
    task = SimpleNamespace(_instances=requests, doc_iterator=lambda: enumerate("abcdefgh"[:items]))
    task.instances = requests
    return task


def test_parts_hold_each_item_once_and_from_every_member() -> None:
    tasks = {"law": member(8), "art": member(8)}
    parts = parts_of(SPEC, tasks, (4, 8), seed=7)
    assert [part.num_items for part in parts] == [4, 4, 8]
    places = sorted(
        part.offsets[name] + number
        for part in parts
        for name, ids in part.ids.items()
        for number in ids
    )
    assert places == list(range(16))
    assert parts == parts_of(SPEC, tasks, (4, 8), seed=7)
    assert parts != parts_of(SPEC, tasks, (4, 8), seed=8)


def test_without_looks_there_is_one_part() -> None:
    tasks = {"law": member(8), "art": member(8)}
    (whole,) = parts_of(SPEC, tasks, (), seed=7)
    assert whole.offsets == {"law": 0, "art": 8}
    assert len(requests_of(tasks, whole)) == 16


def test_a_part_is_all_that_is_asked_and_afterwards_all_is_there_again() -> None:
    tasks = {"law": member(8), "art": member(8)}
    first, *_ = parts_of(SPEC, tasks, (1,), seed=7)
    with only(tasks, first) as chosen:
        (task,) = chosen.values()
        (number,) = next(iter(first.ids.values()))
        assert [r.doc_id for r in task._instances] == [number]  # noqa: SLF001 -- lm-eval's
        assert [place for place, _ in task.doc_iterator()] == [number]
    assert len(requests_of(tasks, parts_of(SPEC, tasks, (), seed=7)[0])) == 16
    assert len(list(tasks["law"].doc_iterator())) == 8


def test_members_with_fewer_items_count_on_where_the_one_before_ends() -> None:
    tasks = {"law": member(3), "art": member(8)}
    (whole,) = parts_of(task_spec("group", items=11), tasks, (), seed=7)
    assert whole.offsets == {"law": 0, "art": 3}
    assert whole.num_items == 11
