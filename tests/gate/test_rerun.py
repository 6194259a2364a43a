"""The baseline against itself: items are matched by what they are."""

from collections.abc import Callable
from dataclasses import replace

from harness.artifacts import Arm, Sample
from harness.gate import Flips, count_flips, sum_flips

MakeArm = Callable[..., Arm]
Samples = Callable[..., tuple[Sample, ...]]


def test_a_second_run_of_fewer_items_counts_those(arm: MakeArm, samples: Samples) -> None:
    first = arm("baseline", {"add": samples("add", [1.0, 1.0, 0.0, 1.0])})
    again = arm("baseline", {"add": samples("add", [1.0, 0.0])})
    assert count_flips(first, again) == {"add": Flips(2, 1)}


def test_items_in_another_order_are_the_same_items(arm: MakeArm, samples: Samples) -> None:
    """As the members of a group stand when each gives fewer."""
    values = samples("add", [1.0, 0.0, 1.0])
    first = arm("baseline", {"add": values})
    assert count_flips(first, arm("baseline", {"add": values[::-1]})) == {"add": Flips(3, 0)}


def test_items_that_are_alike_are_matched_in_their_order(arm: MakeArm, samples: Samples) -> None:
    alike = tuple(
        replace(s, doc_hash="d", prompt_hash="p", target_hash="t")
        for s in samples("add", [1.0, 0.0])
    )
    first = arm("baseline", {"add": alike})
    assert count_flips(first, first) == {"add": Flips(2, 0)}


def test_failed_requests_are_no_flips(arm: MakeArm, samples: Samples) -> None:
    first = arm("baseline", {"add": samples("add", [1.0, 1.0])})
    failed = samples("add", [0.0, 0.0], finish="error")
    flips = count_flips(first, arm("baseline", {"add": failed}))
    assert flips == {"add": Flips(0, 0)}
    assert sum_flips(flips.values()).rate is None


def test_tasks_add_up(arm: MakeArm, samples: Samples) -> None:
    first = arm("baseline", {t: samples(t, [1.0, 1.0]) for t in ("add", "sort")})
    again = arm("baseline", {t: samples(t, [1.0, 0.0]) for t in ("add", "sort")})
    assert sum_flips(count_flips(first, again).values()) == Flips(4, 2)
