"""The garbage collector keeps away from what stays, and still frees what only cycles hold."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from harness.garbage import collect, collect_rarely, settled


class Cycle:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_ten_thousand_objects_that_stay_are_not_looked_at() -> None:
    looked: list[object] = []
    collect()
    gc.set_threshold(700, 10, 10)
    gc.callbacks.append(lambda phase, _: looked.append(phase))
    try:
        held = [[number] for number in range(10_000)]
        often = len(looked)
        collect_rarely()
        held += [[number] for number in range(10_000)]
        assert often > 0
        assert len(looked) == often
    finally:
        gc.callbacks.pop()


def test_what_was_there_before_is_left_alone_and_what_came_since_is_freed() -> None:
    before = weakref.ref(Cycle())
    with settled():
        since = weakref.ref(Cycle())
        collect()
        assert before() is not None
        assert since() is None
    collect()
    assert before() is None
