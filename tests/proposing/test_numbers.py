"""What is proposed from what was measured: flips to expect, and margins that decide."""

from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Suite, TaskSpec, Tier
from harness.gate import Flips, Variances, chance_of_go
from harness.proposing.numbers import Measured, expected_flips, items_for, propose_task
from harness.proposing.writing import Reasons, draft, written
from harness.recipe import load_suite
from tests.nouns import suite_of, task_spec
from tests.own_tasks import OwnTasks


def measured(accuracy: float = 0.9, **changes: Any) -> Measured:  # noqa: ANN401 - of any field
    spec = task_spec("add", items=400)
    return Measured(spec=spec, accuracy=accuracy, rerun=Flips(400, 0), candidate=None)._replace(
        **changes
    )


@pytest.mark.parametrize(
    ("accuracy", "flips"), [(0.5, 0.25), (0.9, 0.09), (0.99, 0.04), (1.0, 0.04), (0.0, 0.04)]
)
def test_unmeasured_flips_are_assumed_from_the_accuracy(accuracy: float, flips: float) -> None:
    rate, why = expected_flips(measured(accuracy))
    assert rate == pytest.approx(flips)
    assert "assumed" in why


def test_measured_flips_get_a_standard_error() -> None:
    rate, why = expected_flips(measured(candidate=Flips(398, 19)))
    assert rate == pytest.approx(0.05 + (0.05 * 0.95 / 398) ** 0.5, abs=1e-4)
    assert "19 of 398" in why


def test_flips_are_never_fewer_than_the_engines_own_noise() -> None:
    assert expected_flips(measured(1.0, rerun=Flips(400, 40)))[0] == 0.1


@pytest.mark.parametrize("num_critical", [1, 4])
def test_the_margin_is_the_least_quarter_of_a_point_that_passes(num_critical: int) -> None:
    suite = suite_of()
    found = propose_task(measured(), suite, num_critical=num_critical).spec
    power = 0.8 ** (1 / num_critical)
    assert found.tier is Tier.CRITICAL
    assert found.margin is not None
    assert chance_of_go(found, suite.confidence) >= power
    narrower = task_spec("add", items=400, flip_rate=0.09, margin=found.margin - 0.0025)
    assert chance_of_go(narrower, suite.confidence) < power


@pytest.mark.parametrize(("accuracy", "chance"), [(0.25, 0.25), (0.2, 0.25), (0.28, 0.25)])
def test_a_baseline_that_guesses_decides_nothing(accuracy: float, chance: float) -> None:
    weak = measured(accuracy, spec=task_spec("add", items=400, chance=chance))
    found = propose_task(weak, suite_of(), num_critical=1)
    assert found.spec.tier is Tier.ADVISORY
    assert "decides nothing" in found.margin_reason


def test_as_many_items_as_are_named_would_decide_two_points() -> None:
    spec = propose_task(measured(), suite_of(), num_critical=1).spec
    items = items_for(spec, 0.95)
    assert items is not None
    enough = task_spec("add", items=items, flip_rate=spec.flip_rate, margin=0.02)
    fewer = task_spec("add", items=round(0.85 * items), flip_rate=spec.flip_rate, margin=0.02)
    assert chance_of_go(enough, 0.95) >= 0.8 > chance_of_go(fewer, 0.95)


def test_repeats_are_planned_from_their_variances() -> None:
    drawn = task_spec("add", items=200, repeats=8, temperature=0.6, item_sd=0.5, repeat_sd=0.5)
    variances = Variances(0.7, 0.08, 0.45, item_sd_is_assumed=True)
    found = propose_task(
        measured(0.7, spec=drawn, variances=variances), suite_of(), num_critical=1
    ).spec
    assert (found.item_sd, found.repeat_sd, found.baseline_accuracy) == (0.08, 0.45, 0.7)
    assert found.margin is not None
    assert 0 < found.margin < 0.1


def reasons(suite: Suite) -> Reasons:
    many = tuple("because: of # this" for _ in suite.tasks)
    return Reasons(("A head. " * 30,), "longest", "chats", "cut", many, many)


@pytest.mark.parametrize("changes", [{}, {"repeats": 4, "temperature": 0.7, "top_p": 0.9}])
def test_what_is_written_is_what_was_measured(tmp_path: Path, changes: dict[str, object]) -> None:
    own = OwnTasks(tmp_path / "mine")
    spec: TaskSpec = task_spec("own_next", items=60, filter="plain", **changes)
    if changes:
        spec = task_spec("own_next", items=60, item_sd=0.1, repeat_sd=0.4, **changes)
    suite = suite_of(spec, tasks_from=(str(own.folder),), name="made")
    drafted = tmp_path / "draft.yaml"
    drafted.write_text(draft(suite))
    before = load_suite(str(drafted))
    proposed = propose_task(Measured(spec, 0.9, None, None), before, num_critical=1)
    file = own.root / "made.yaml"
    file.write_text(written(before, [proposed], reasons(before), into=file))
    after = load_suite(str(file))
    assert after.digest == load_suite(str(drafted)).digest
    assert "- tasks" in file.read_text()
    assert after.tasks[0].margin == proposed.spec.margin


@pytest.mark.parametrize("name", ["2025", "true", "2026-10-01", "null", "1e3", "mine"])
def test_a_suite_may_be_called_like_a_number_a_date_or_a_truth(tmp_path: Path, name: str) -> None:
    suite = suite_of(task_spec("add", items=400), name=name)
    file = tmp_path / f"{name}.yaml"
    proposed = propose_task(measured(), suite, num_critical=1)
    file.write_text(written(suite, [proposed], reasons(suite), into=file))
    assert load_suite(str(file)).name == name


def test_folders_are_found_from_a_suite_that_lies_behind_a_link(tmp_path: Path) -> None:
    own = OwnTasks(tmp_path / "mine")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    suite = suite_of(task_spec("own_next", items=60), tasks_from=(str(own.folder),))
    file = tmp_path / "link" / "made.yaml"
    proposed = propose_task(measured(), suite, num_critical=1)
    file.write_text(written(suite, [proposed], reasons(suite), into=file))
    assert load_suite(str(file)).tasks_from == suite.tasks_from
