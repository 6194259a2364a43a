"""Our scores in other tools' layouts: read by their own tools, and back by us."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest

from harness.artifacts import Arm, Sample, Suite
from harness.errors import PrerequisiteError, UsageError
from harness.foreign import read_recorded, write_as
from harness.foreign.arms import to_arm
from harness.foreign.write_nel import write_nel
from harness.nel import find_nel
from tests.foreign_results.conftest import DATA, judge, refusal
from tests.nouns import deployment, sample, scorecard, suite_of, task_score, task_spec
from tests.tiers import slow
from tests.typed import typed

LAYOUTS = ("lm-eval", "nel")
Arms = dict[str, Arm]
LOST, WON = 3, 1


def suite(**changes: object) -> Suite:
    return suite_of(task_spec("mul20", items=20, margin=0.02, **changes))


def arm_of(name: str, values: list[float], **changes: object) -> Arm:
    samples = tuple(sample("mul20", i, value) for i, value in enumerate(values))
    samples = tuple(dataclasses.replace(one, **changes) for one in samples)  # type: ignore[arg-type]
    served = deployment(model=f"/models/{name}", checkpoint_digest=name[0] * 64)
    asked = {"generation": {"until": ["\n"]}, "num_fewshot": 0, "output_type": "generate_until"}
    card = scorecard(name, served, task_score("mul20", samples))
    card = dataclasses.replace(card, generation={"mul20": json.dumps(asked)})
    return Arm(scorecard=card, samples={"mul20": samples})


@pytest.fixture
def both() -> Arms:
    """Of 20 items the candidate loses three and wins one."""
    return {
        "baseline": arm_of("baseline", [1.0] * LOST + [0.0] * WON + [1.0] * 16),
        "candidate": arm_of("candidate", [0.0] * LOST + [1.0] * WON + [1.0] * 16),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_judged_alike(both: Arms, tmp_path: Path, layout: str) -> None:
    write_as(layout, both, suite(), tmp_path / "out")
    done = judge(tmp_path / "out" / "baseline", tmp_path / "out" / "candidate", "--margin", 0.02)
    (task,) = done.json["tasks"]
    assert (task["num_items"], task["num_lost"], task["num_won"]) == (20, LOST, WON)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_model_written_twice_is_refused(both: Arms, tmp_path: Path, layout: str) -> None:
    for again in ("one", "two"):
        write_as(layout, both, suite(), tmp_path / again)
    arms = (tmp_path / "one" / "baseline", tmp_path / "two" / "baseline")
    assert re.search("hold the same run|are of the same model", refusal(*arms, "--margin", 0.02))


@pytest.mark.parametrize("fraction", ["", ".250000"])
def test_a_bundle_has_the_time_to_the_second(tmp_path: Path, fraction: str) -> None:
    stamp = f"2026-01-02T03-04-05{fraction}"
    files = write_nel(arm_of("baseline", [1.0] * 20), suite(), tmp_path, stamp)
    assert "eval-20260102T030405Z-mul20.json" in {file.name for file in files}


def test_lm_eval_s_own_table_reads_the_results(both: Arms, tmp_path: Path) -> None:
    from lm_eval.utils import (  # noqa: PLC0415 -- takes seconds to import
        get_file_task_name,
        get_results_filenames,
        get_sample_results_filenames,
        make_table,
    )

    files = [str(file) for file in write_as("lm-eval", both, suite(), tmp_path / "out")]
    (results,) = (f for f in get_results_filenames(files) if "/baseline/" in f)
    (samples,) = (f for f in get_sample_results_filenames(files) if "/baseline/" in f)
    assert get_file_task_name(Path(samples).name) == "mul20"
    row = make_table(json.loads(Path(results).read_text())).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")][1:8:2] == [
        "mul20",
        "none",
        "exact_match",
        "0.95",
    ]


def test_each_sample_has_what_lm_eval_s_has(both: Arms, tmp_path: Path) -> None:
    files = write_as("lm-eval", both, suite(), tmp_path / "out")
    theirs = next((DATA / "lm_eval" / "baseline").glob("samples_mul20_*"))
    known = set(json.loads(theirs.read_text().splitlines()[0]))
    ours = next(file for file in files if file.name.startswith("samples_mul20"))
    assert known <= set(json.loads(ours.read_text().splitlines()[0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_metric_of_another_range_is_written(tmp_path: Path, layout: str) -> None:
    arm = arm_of("baseline", [0.25] * 20)
    asked = suite(value_range=(0.0, 4.0), spread=0.5)
    write_as(layout, {"a": arm}, asked, tmp_path / "out")
    (task,) = read_recorded(tmp_path / "out" / "a").tasks
    (value,) = {v for answer in task.answers for v in answer.values.values()}
    assert value == (1.0 if layout == "lm-eval" else 0.25)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_request_that_failed_is_never_an_answer(tmp_path: Path, layout: str) -> None:
    arm = arm_of("baseline", [1.0] * 20)
    first, *rest = arm.samples["mul20"]
    failed = dataclasses.replace(first, finish="error", answer="refused", value=0.0)
    arm = dataclasses.replace(arm, samples={"mul20": (failed, *rest)})
    write_as(layout, {"a": arm}, suite(), tmp_path / "out")
    (task,) = read_recorded(tmp_path / "out" / "a").tasks
    answer = task.answers[0]
    assert answer.finish == "error" or all(v is None for v in answer.values.values())


def test_repeats_are_rows_of_a_bundle_and_one_sample_of_lm_eval(tmp_path: Path) -> None:
    arm = arm_of("baseline", [1.0] * 2)
    again = [dataclasses.replace(s, repeat=1, value=0.0) for s in arm.samples["mul20"]]
    twice: list[Sample] = [
        x for pair in zip(arm.samples["mul20"], again, strict=True) for x in pair
    ]
    card = dataclasses.replace(arm.scorecard, tasks=(task_score("mul20", twice),))
    arm = Arm(scorecard=card, samples={"mul20": tuple(twice)})
    asked = suite(repeats=2)
    for layout in LAYOUTS:
        write_as(layout, {"a": arm}, asked, tmp_path / layout)
    nel, lm_eval = (
        read_recorded(tmp_path / layout / "a").tasks[0] for layout in ("nel", "lm-eval")
    )
    assert [(a.item, a.repeat) for a in nel.answers] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    assert [list(a.values.values()) for a in lm_eval.answers] == [[0.5], [0.5]]


def test_a_folder_with_something_in_it_is_refused(both: Arms, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("")
    with pytest.raises(UsageError, match="is no empty folder"):
        write_as("nel", both, suite(), tmp_path)


def test_an_unknown_layout_is_refused(both: Arms, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Type --as lm-eval or --as nel"):
        write_as("mlflow", both, suite(), tmp_path / "out")


@pytest.mark.parametrize("typed_words", [("--as", "nel"), ("out",)])
def test_layout_and_folder_belong_together(tmp_path: Path, typed_words: tuple[str, ...]) -> None:
    done = typed("report", tmp_path, *typed_words)
    assert done.code == 2
    assert "another tool's layout and its folder belong together" in done.err


def test_lm_eval_s_arms_can_be_written_as_bundles(tmp_path: Path) -> None:
    asked = suite_of(task_spec("mul20", items=20, filter="strict"))
    arm = to_arm(read_recorded(DATA / "lm_eval" / "baseline"), asked, arm="baseline")
    write_as("nel", {"a": arm}, asked, tmp_path / "out")
    (task,) = read_recorded(tmp_path / "out" / "a").tasks
    assert sum(a.values[task.metrics[0]] == 1.0 for a in task.answers) == 18


@pytest.fixture
@slow("NeMo Evaluator compares two bundles, in a process that takes seconds to begin")
def nel() -> str:
    try:
        return str(find_nel(None))
    except PrerequisiteError as error:
        pytest.skip(str(error))


def test_nemo_evaluator_s_own_comparison_reads_the_bundles(
    both: Arms, tmp_path: Path, nel: str
) -> None:
    write_as("nel", both, suite(), tmp_path)
    code = (
        "import sys, json, pathlib; from nemo_evaluator.engine.bundles import discover_bundles\n"
        "from nemo_evaluator.engine.comparison import compare_runs\n"
        "arms = [discover_bundles(pathlib.Path(p))['mul20'] for p in sys.argv[1:]]\n"
        "print(json.dumps(compare_runs(*arms)['flip_report']['contingency']))"
    )
    done = subprocess.run(
        [nel, "-I", "-c", code, str(tmp_path / "baseline"), str(tmp_path / "candidate")],
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(done.stdout.splitlines()[-1])
    assert (table["baseline_only_correct"], table["candidate_only_correct"]) == (LOST, WON)
