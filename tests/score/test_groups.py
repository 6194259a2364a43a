"""Groups, groups of groups and tags are one task, scored as lm-eval scores them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from harness.artifacts import Suite, read_samples
from harness.errors import SuiteError
from harness.score import check_suite, score
from harness.score.local_data import files_read_here
from harness.score.sources import Catalog
from tests.score.conftest import CHOOSE, GENERATE, write_task

Make = Callable[..., Any]
ALPHABET: Mapping[str, str] = {"a": "b", "b": "\n", "k": "k", "?": "<|end|>"}
SIZES = {"few": 2, "some": 3, "many": 5}
AGGREGATED = "aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: %s}]\n"
GROUPS = {
    "flat": "task: [few, some, many]\n" + AGGREGATED % "true",
    "alike": "task: [few, some, many]\n" + AGGREGATED % "false",
    "inner": "task: [some, many]\n",
    "nested": "task: [few, inner]\n" + AGGREGATED % "true",
    "written": "task:\n  - few\n  - {group: here, task: [some, {task: many, task_alias: lots}]}\n"
    + AGGREGATED % "true",
    "of_tag": "task: [tagged]\n" + AGGREGATED % "true",
}


@pytest.fixture(autouse=True)
def folder(tasks: Path) -> Path:
    for name, size in SIZES.items():
        rows: list[dict[str, object]] = [
            {"prompt": "xa"[i % 2 :], "choices": ["b", "c"], "gold": int(i % 3 == 0)}
            for i in range(size)
        ]
        write_task(tasks, name, rows, CHOOSE + "tag: tagged\n")
    for name, text in GROUPS.items():
        (tasks / f"{name}.yaml").write_text(f"group: {name}\n{text}")
    return tasks


@pytest.fixture
def asked(spec: Make, suite: Make) -> Make:
    def make(name: str, items: int, **changes: object) -> Suite:
        made: Suite = suite(spec(name, **{"metric": "acc", "items": items, **changes}))
        check_suite(made)
        return made

    return make


def of_lm_eval(served: Make, name: str, limit: int | None) -> float:
    """Return what lm-eval's own evaluate says of a group, of at most `limit` items of each."""
    model = served(ALPHABET)
    lm: Any = HFLM(pretrained=model.model, tokenizer=model.tokenizer, max_length=32, batch_size=3)
    with files_read_here():
        loaded = Catalog().manager(name).load([name])
    results = evaluate(lm, loaded, limit=limit, bootstrap_iters=0)["results"]
    value: float = results[name]["acc,none"]
    return value


@pytest.mark.parametrize("name", ["flat", "nested", "written", "of_tag"])
@pytest.mark.parametrize(("items", "limit"), [(10, None), (6, 2), (8, 3), (3, 1)])
def test_a_groups_score_is_lm_evals_own(  # noqa: PLR0913, PLR0917  makers
    served: Make, asked: Make, tmp_path: Path, name: str, items: int, limit: int | None
) -> None:
    card = score(served(ALPHABET), asked(name, items), arm="a", into=tmp_path / "out")
    assert card.tasks[0].value == pytest.approx(of_lm_eval(served, name, limit))
    samples = read_samples(tmp_path / "out" / card.tasks[0].samples)
    assert [s.doc_id for s in samples] == list(range(items))


def test_a_group_whose_members_count_alike_is_asked_alike(
    served: Make, asked: Make, tmp_path: Path
) -> None:
    card = score(served(ALPHABET), asked("alike", 6), arm="a", into=tmp_path)
    assert card.tasks[0].value == pytest.approx(of_lm_eval(served, "alike", 2))
    with pytest.raises(SuiteError, match=r"count alike .* Set items to at most 6"):
        asked("alike", 10)


def test_a_tag_is_all_that_carry_it(served: Make, asked: Make, tmp_path: Path) -> None:
    card = score(served(ALPHABET), asked("tagged", 10), arm="a", into=tmp_path)
    whole = score(served(ALPHABET), asked("flat", 10), arm="a", into=tmp_path / "flat")
    assert card.tasks[0].value == whole.tasks[0].value


@pytest.mark.parametrize(
    ("items", "said"), [(4, "set items to 3 or 6"), (7, "to 6 or 8"), (11, "10 in all")]
)
def test_a_number_that_cannot_be_shared_out_is_refused(asked: Make, items: int, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        asked("nested", items)


def test_members_in_different_units_have_no_score(folder: Path, asked: Make) -> None:
    texts: list[dict[str, object]] = [{"text": "abc"}]
    write_task(
        folder,
        "read",
        texts,
        'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
        "metric_list: [{metric: own, aggregation: bits_per_byte, higher_is_better: false}]\n",
    )
    rows: list[dict[str, object]] = [{"prompt": "a", "target": "b"}]
    said = GENERATE.replace("exact_match", "own") + "process_results: !function x.y\n"
    write_task(folder, "said", rows, said)
    (folder / "mixed.yaml").write_text("group: mixed\ntask: [read, said]\n")
    with pytest.raises(SuiteError, match="in different units"):
        asked("mixed", 2, metric="own", margin=None, relative_margin=0.01)
