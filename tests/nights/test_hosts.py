"""A host is named where more failures are on it than chance would put there."""

import random

from harness.artifacts import CellEnding, NightRow
from harness.nights import sick_hosts
from tests.nights.rows import night_row

FAILED = CellEnding.INFRA_FAILED


def night(bad: dict[str, int], good: dict[str, int], name: str = "1") -> list[NightRow]:
    """Return a night in which so many cells failed and ended well on each host."""
    return [
        night_row(f"{ending.value} {host} {number}", name, ending, host=host)
        for ending, hosts in ((FAILED, bad), (CellEnding.GO, good))
        for host, count in hosts.items()
        for number in range(count)
    ]


def test_failures_that_pile_up_on_one_host_are_said_in_words() -> None:
    (found,) = sick_hosts(night({"x": 4, "y": 1}, {"x": 1, "y": 12, "z": 12}))
    assert found.message.startswith("4 of 5 failures on host x, which ran 5 of 30 cells")


def test_as_many_failures_on_a_host_that_ran_most_cells_name_nobody() -> None:
    assert sick_hosts(night({"x": 4, "y": 1}, {"x": 20, "y": 5})) == ()


def test_a_single_host_is_never_named() -> None:
    assert sick_hosts(night({"x": 9}, {"x": 1})) == ()


def test_a_host_that_fails_a_little_every_night_is_found_over_several() -> None:
    one = night({"x": 2}, {"y": 3, "z": 3}, "1")
    two = night({"x": 2}, {"y": 3, "z": 3}, "2")
    assert sick_hosts(one) == ()
    assert [found.host for found in sick_hosts([*one, *two])] == ["x"]


def test_a_bad_checkpoint_on_one_host_night_after_night_names_nobody() -> None:
    rows = [
        night_row(cell, str(number), ending, host=host)
        for number in range(20)
        for cell, host, ending in (
            ("bad", "x", CellEnding.NO_GO),
            ("good", "x", CellEnding.GO),
            ("other", "y", CellEnding.GO),
        )
    ]
    assert sick_hosts(rows) == ()


def test_bad_checkpoints_hide_no_machine_that_loses_runs() -> None:
    rows = [
        *night({"x": 2}, {"x": 1, "y": 4, "z": 4}, "1"),
        *night({"x": 2}, {"y": 4, "z": 4}, "2"),
    ]
    bad = [
        night_row(f"bad {number}", name, CellEnding.NO_GO, host=host)
        for number in range(4)
        for name in ("1", "2")
        for host in "yz"
    ]
    assert [found.host for found in sick_hosts([*rows, *bad])] == ["x"]


def test_tries_of_one_cell_count_once() -> None:
    rows = night({}, {"x": 3, "y": 5})
    rows += [night_row("a", "1", FAILED, host="x", attempt=n) for n in range(1, 9)]
    assert sick_hosts(rows) == ()


def test_failures_that_chance_spreads_name_a_host_seldom() -> None:
    draws = random.Random(5)  # noqa: S311  a test needs no secret
    named = 0
    for _ in range(400):
        rows = [
            night_row(str(n), "1", FAILED if draws.random() < 0.2 else CellEnding.GO, host=host)
            for n in range(40)
            for host in [draws.choice("wxyz")]
        ]
        named += bool(sick_hosts(rows))
    assert named <= 0.02 * 400
