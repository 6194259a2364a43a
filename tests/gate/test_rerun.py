"""The baseline against itself: items are matched by what they are."""

from collections.abc import Callable
from dataclasses import replace

from harness.artifacts import Sample
from harness.gate import Flips, count_flips, sum_flips
from tests.gate.arms import answers, make_arm

Samples = Callable[..., tuple[Sample, ...]]


def test_a_second_run_of_fewer_items_counts_those() -> None:
    first = make_arm("baseline", {"add": answers("add", [1.0, 1.0, 0.0, 1.0])})
    again = make_arm("baseline", {"add": answers("add", [1.0, 0.0])})
    assert count_flips(first, again) == {"add": Flips(2, 1)}


def test_items_in_another_order_are_the_same_items() -> None:
    """As the members of a group stand when each gives fewer."""
    values = answers("add", [1.0, 0.0, 1.0])
    first = make_arm("baseline", {"add": values})
    assert count_flips(first, make_arm("baseline", {"add": values[::-1]})) == {"add": Flips(3, 0)}


def test_items_that_are_alike_are_matched_in_their_order() -> None:
    alike = tuple(
        replace(s, doc_hash="d", prompt_hash="p", target_hash="t")
        for s in answers("add", [1.0, 0.0])
    )
    first = make_arm("baseline", {"add": alike})
    assert count_flips(first, first) == {"add": Flips(2, 0)}


def test_failed_requests_are_no_flips() -> None:
    first = make_arm("baseline", {"add": answers("add", [1.0, 1.0])})
    failed = answers("add", [0.0, 0.0], finish="error")
    flips = count_flips(first, make_arm("baseline", {"add": failed}))
    assert flips == {"add": Flips(0, 0)}
    assert sum_flips(flips.values()).rate is None


def test_tasks_add_up() -> None:
    first = make_arm("baseline", {t: answers(t, [1.0, 1.0]) for t in ("add", "sort")})
    again = make_arm("baseline", {t: answers(t, [1.0, 0.0]) for t in ("add", "sort")})
    assert sum_flips(count_flips(first, again).values()) == Flips(4, 2)
