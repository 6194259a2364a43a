"""`harness judge` on what lm-eval itself wrote: the paired table by hand, and every refusal."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.foreign import read_recorded
from tests.foreign_results.conftest import (
    change_results,
    change_samples,
    judge,
    refusal,
    results_of,
    samples_of,
)

Arms = tuple[Path, Path]
MARGIN = ("--margin", 0.02)
LOST = {"mul20": (0, 1, 4, 6, 8, 9, 16, 19), "cmp20": (4, 15, 19)}
"""By hand, from both files of samples: what the baseline has right and the candidate wrong."""
WRONG_IN_BOTH = {"mul20": (11, 18), "cmp20": ()}


def task_of(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(task for task in verdict["tasks"] if task["task"] == name)
    return found


@pytest.mark.parametrize("name", ["mul20", "cmp20"])
def test_the_table_is_the_one_made_by_hand(arms: Arms, name: str) -> None:
    task = task_of(judge(*arms, *MARGIN).json, name)
    lost, wrong = len(LOST[name]), len(WRONG_IN_BOTH[name])
    assert (task["num_items"], task["num_lost"], task["num_won"]) == (20, lost, 0)
    assert task["baseline"] == pytest.approx((20 - wrong) / 20)
    assert task["candidate"] == pytest.approx((20 - wrong - lost) / 20)


def test_the_arms_exchanged_win_what_was_lost(arms: Arms) -> None:
    task = task_of(judge(*reversed(arms), *MARGIN).json, "mul20")
    assert (task["num_lost"], task["num_won"]) == (0, 8)


def test_the_flips_are_the_items_found_by_hand(arms: Arms) -> None:
    flips = judge(*arms, *MARGIN).json["flips"]
    found = {(flip["task"], flip["doc_id"]) for flip in flips if flip["lost"]}
    assert found == {(task, item) for task, items in LOST.items() for item in items}


def test_a_loss_is_no_go(arms: Arms) -> None:
    done = judge(*arms, *MARGIN)
    assert (done.code, done.json["decision"]) == (4, "NO-GO")
    assert done.json["reason_codes"][0] == "task-inferior"


def test_without_evidence_of_the_deployment_the_end_is_inconclusive(arms: Arms) -> None:
    make_equal(arms)
    done = judge(*arms, "--margin", 0.3)
    assert (done.code, done.json["decision"]) == (5, "INCONCLUSIVE")
    expected = ["load-not-reconciled", "kernels-unknown", "endings-unknown"]
    assert done.json["reason_codes"] == expected


def test_the_answers_alone_give_go_where_it_is_typed(arms: Arms) -> None:
    make_equal(arms)
    done = judge(*arms, "--margin", 0.3, "--missing-evidence", "go")
    assert (done.code, done.json["decision"]) == (0, "GO")
    assert "endings-unknown" in done.json["reason_codes"]
    assert "no files were verified" in done.json["scope"][1]


def make_equal(arms: Arms) -> None:
    """Give the candidate the baseline's answers, as another run of another model."""
    shutil.rmtree(arms[1])
    shutil.copytree(arms[0], arms[1])
    change_results(arms[1], rename)


def rename(values: dict[str, Any]) -> None:
    values["model_name"] = values["config"]["model_args"]["pretrained"] = "other"


def test_without_a_margin_it_is_said_what_is_needed(arms: Arms) -> None:
    text = refusal(*arms)
    assert "(mul20, cmp20), and not how much may be lost" in text
    assert "--margin 0.02" in text


def test_the_tool_s_first_metric_counts_and_the_others_are_named(arms: Arms) -> None:
    scope = judge(*arms, *MARGIN).json["scope"]
    assert "mul20 was judged by exact_match (filter strict) alone" in " ".join(scope)
    assert "not by acc_norm" in " ".join(scope)


def test_a_suite_chooses_task_filter_and_items(arms: Arms, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, filter="flexible", items=10)
    tasks = judge(*arms, "--suite", suite).json["tasks"]
    assert [(task["task"], task["num_items"], task["num_lost"]) for task in tasks] == [
        ("mul20", 10, 6)
    ]


def test_a_suite_that_asks_otherwise_refuses(arms: Arms, tmp_path: Path) -> None:
    text = refusal(*arms, "--suite", write_suite(tmp_path, num_fewshot=5))
    assert "was asked with num_fewshot 0, and suite 'own' asks for 5" in text


def test_a_suite_without_a_recorded_task_refuses(arms: Arms, tmp_path: Path) -> None:
    text = refusal(*arms, "--suite", write_suite(tmp_path, name="gsm8k"))
    assert "suite 'own' asks gsm8k, and" in text


def test_a_metric_that_is_not_recorded_is_named(arms: Arms, tmp_path: Path) -> None:
    text = refusal(*arms, "--suite", write_suite(tmp_path, metric="f1"))
    assert "metric f1 (filter strict) is not recorded" in text


def write_suite(folder: Path, **changes: object) -> Path:
    task: dict[str, object] = {
        "name": "mul20",
        "tier": "critical",
        "metric": "exact_match",
        "filter": "strict",
    }
    task |= {"items": 20, "margin": 0.02, "flip_rate": 0.05, "num_fewshot": 0, "chance": 0.0}
    values: dict[str, Any] = {"version": 1, "name": "own", "max_model_len": 64}
    values |= {"apply_chat_template": False, "seed": 1, "batch_size": 1, "confidence": 0.95}
    values |= {"max_truncated": 0.02, "tasks": [task | changes]}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_group_of_tasks_with_one_metric_is_one_task(arms: Arms) -> None:
    for arm in arms:
        change_samples(arm, "cmp20", as_generated)
        change_samples(arm, "mul20", lambda lines: lines.__setitem__(slice(None), lines[:20]))
    (task,) = judge(*arms, *MARGIN).json["tasks"]
    assert (task["task"], task["num_items"], task["num_lost"]) == ("both20", 40, 11)


def as_generated(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        line |= {"filter": "strict", "metrics": ["exact_match"], "exact_match": line["acc"]}


def test_a_file_of_results_names_one_run(arms: Arms) -> None:
    done = judge(*(results_of(arm) for arm in arms), *MARGIN)
    assert task_of(done.json, "mul20")["num_lost"] == 8


def test_a_folder_above_the_model_s_is_read(arms: Arms, tmp_path: Path) -> None:
    for arm in arms:
        (tmp_path / f"of-{arm.name}").mkdir()
        arm.rename(tmp_path / f"of-{arm.name}" / "model")
    done = judge(tmp_path / "of-baseline", tmp_path / "of-candidate", *MARGIN)
    assert task_of(done.json, "mul20")["num_lost"] == 8


def test_results_of_a_name_of_their_own_are_read(arms: Arms) -> None:
    for arm in arms:
        file = results_of(arm)
        file.rename(file.with_name(file.name.replace("results_", "canary_")))
    assert task_of(judge(*arms, *MARGIN).json, "mul20")["num_lost"] == 8


def test_of_several_runs_the_latest_counts_and_is_named(arms: Arms) -> None:
    for file in files_of(arms[0]):
        stamp = file.name.rsplit("_", 1)[1].split(".")[0]
        shutil.copy(file, file.with_name(file.name.replace(stamp, "2027-01-01T00-00-00")))
    change = "2027-01-01T00-00-00"
    later = next(f for f in arms[0].glob("samples_mul20_*") if change in f.name)
    spoil(arms[0], later)
    done = judge(*arms, *MARGIN)
    assert task_of(done.json, "mul20")["baseline"] == 0.0
    assert "holds 2 runs of mul20: the latest, 2027-01-01" in " ".join(done.json["scope"])


def files_of(folder: Path) -> list[Path]:
    return [*folder.glob("results_*"), *folder.glob("samples_*")]


def spoil(folder: Path, later: Path) -> None:
    """Make every answer of the later run wrong, and its results say so."""
    lines = [json.loads(line) | {"exact_match": 0.0} for line in later.read_text().splitlines()]
    later.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = next(f for f in folder.glob("results_2027*"))
    values = json.loads(results.read_text())
    values["results"]["mul20"] |= {"exact_match,strict": 0.0, "exact_match,flexible": 0.0}
    results.write_text(json.dumps(values))


def test_a_later_run_without_samples_is_no_reason_to_take_the_earlier(arms: Arms) -> None:
    file = results_of(arms[0])
    shutil.copy(file, file.with_name("results_2027-01-01T00-00-00.json"))
    assert "has scores of task 'mul20' and no samples beside it" in refusal(*arms, *MARGIN)


def test_several_models_in_one_folder_are_refused(arms: Arms, tmp_path: Path) -> None:
    text = refusal(tmp_path, arms[1], *MARGIN)
    assert "holds results of 2 models: 'base-model' in" in text


def test_scores_without_samples_are_refused(arms: Arms) -> None:
    samples_of(arms[1], "cmp20").unlink()
    text = refusal(*arms, *MARGIN)
    assert "has scores of task 'cmp20' and no samples beside it" in text
    assert "--log_samples" in text


def test_samples_without_results_are_refused(arms: Arms) -> None:
    results_of(arms[1]).unlink()
    assert "holds samples of lm-eval and no results_*.json" in refusal(*arms, *MARGIN)


def test_a_part_of_a_task_is_refused(arms: Arms) -> None:
    def limit(values: dict[str, Any]) -> None:
        values["config"]["limit"] = 20
        values["n-samples"]["mul20"]["original"] = 1319

    for arm in arms:
        change_results(arm, limit)
    text = refusal(*arms, *MARGIN)
    assert "task 'mul20'" in text
    assert "20 of 1319 items were asked (limit 20)" in text


def test_a_part_that_a_suite_asks_for_is_judged(arms: Arms, tmp_path: Path) -> None:
    for arm in arms:
        change_results(arm, lambda v: v["n-samples"]["mul20"].update(original=1319))
    tasks = judge(*arms, "--suite", write_suite(tmp_path)).json["tasks"]
    assert tasks[0]["num_lost"] == 8


def test_fewer_items_than_a_suite_asks_never_pass(arms: Arms, tmp_path: Path) -> None:
    make_equal(arms)
    done = judge(*arms, "--suite", write_suite(tmp_path, items=30), "--missing-evidence", "go")
    assert (done.code, done.json["reason_codes"][0]) == (5, "score-missing")


DIFFERENCES: dict[str, tuple[Any, str]] = {
    "version of lm-eval": (lambda v: v.update(lm_eval_version="0.4.9"), "lm-eval's version"),
    "version of the task": (lambda v: v["versions"].update(mul20=2.0), "the task's version"),
    "shots": (lambda v: v["n-shot"].update(mul20=5), "num_fewshot"),
    "seed": (lambda v: v["config"].update(fewshot_seed=7), "fewshot_seed"),
    "template": (lambda v: v.update(chat_template_sha="ab"), "apply_chat_template"),
    "instruction": (lambda v: v.update(system_instruction="Be brief."), "the system's instruct"),
    "tokenizer": (lambda v: v.update(tokenizer_eos_token=["</s>", "2"]), "the tokenizer's end"),
    "length": (lambda v: v.update(max_length=512), "the longest text"),
    "generation": (
        lambda v: v["configs"]["mul20"]["generation_kwargs"].update(temperature=0.6),
        "generation of task 'mul20'",
    ),
    "filters": (lambda v: v["configs"]["mul20"].update(filter_list=[]), "filter_list"),
    "repeats": (lambda v: v["configs"]["mul20"].update(repeats=4), "repeats"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_other_conditions_are_refused_by_name(arms: Arms, name: str) -> None:
    change, said = DIFFERENCES[name]
    change_results(arms[1], change)
    text = refusal(*arms, *MARGIN)
    assert "the arms differ in" in text
    assert said in text


def test_other_prompts_are_refused_by_item(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda lines: lines[3].update(prompt_hash="f" * 64))
    assert "task 'mul20', item 3: prompt_hash differs" in refusal(*arms, *MARGIN)


def test_an_item_that_lacks_is_refused(arms: Arms) -> None:
    def drop(lines: list[dict[str, Any]]) -> None:
        lines[:] = [line for line in lines if line["doc_id"] != 7]

    change_samples(arms[1], "mul20", drop)
    text = refusal(*arms, *MARGIN)
    assert "the candidate has no answer to item '7', which the other arm has" in text


def test_an_item_that_is_there_twice_is_refused(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda lines: lines.append(lines[5]))
    assert "has item 5 twice" in refusal(*arms, *MARGIN)


def test_fewer_answers_than_the_results_count_are_refused(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda lines: lines.pop(), told=False)
    assert "has no item 19 with filter" in refusal(*arms, *MARGIN)


def test_samples_that_were_changed_are_refused(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda x: x[0].update(exact_match=1.0), told=False)
    assert "was changed, or is of another run: its exact_match" in refusal(*arms, *MARGIN)


def test_samples_of_another_run_are_refused(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda x: x[0].update(doc_hash="0" * 64), told=False)
    assert "was changed, or is of another run: its items have" in refusal(*arms, *MARGIN)


@pytest.mark.parametrize(("value", "shown"), [("high", "'high'"), (None, "None"), (1.5, "1.5")])
def test_a_value_that_is_no_fraction_is_named(arms: Arms, value: object, shown: str) -> None:
    change_samples(arms[1], "mul20", lambda lines: lines[2].update(exact_match=value))
    text = refusal(*arms, *MARGIN)
    assert f"task 'mul20', item 2: metric exact_match (filter strict) is {shown}" in text


def test_a_value_that_is_not_finite_is_named(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda lines: lines[2].update(exact_match=float("nan")))
    text = refusal(*arms, *MARGIN)
    assert ".jsonl:3: the line holds NaN as 'exact_match'" in text


def test_a_metric_over_all_items_is_refused(arms: Arms) -> None:
    def corpus(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line |= {"metrics": ["bleu"], "bleu": ["a reference", "an answer"]}

    for arm in arms:
        change_samples(arm, "mul20", corpus)
    assert "no metric that is one number for each item: bleu" in refusal(*arms, *MARGIN)


def test_fractions_are_judged_as_means(arms: Arms) -> None:
    for arm in arms:
        change_samples(arm, "mul20", lambda lines: [x.update(exact_match=0.5) for x in lines])
    task = task_of(judge(*arms, *MARGIN).json, "mul20")
    assert (task["baseline"], task["num_lost"], task["num_won"]) == (0.5, 0, 0)


def test_one_run_in_both_places_is_refused(arms: Arms) -> None:
    assert "hold the same run" in refusal(arms[0], arms[0], *MARGIN)


def test_one_model_in_both_places_is_refused(arms: Arms) -> None:
    change_results(arms[1], lambda v: v.update(model_name="base-model"))
    change_results(arms[1], lambda v: v["config"]["model_args"].update(pretrained="base-model"))
    assert "are of the same model 'base-model'" in refusal(*arms, *MARGIN)


def test_a_server_s_name_says_nothing_of_its_model(arms: Arms) -> None:
    for arm in arms:
        change_results(arm, lambda v: v.update(model_source="local-completions", model_name="m"))
        change_results(arm, lambda v: v["config"].update(model_args={"model": "m"}))
    assert judge(*arms, *MARGIN).code == 4


def test_tasks_that_one_arm_lacks_are_refused(arms: Arms) -> None:
    change_results(arms[1], lambda v: v["n-samples"].pop("cmp20"))
    assert "the candidate has no answers to task 'cmp20'" in refusal(*arms, *MARGIN)


def test_samples_of_several_processes_are_ordered(arms: Arms) -> None:
    def gathered(lines: list[dict[str, Any]]) -> None:
        lines.sort(key=lambda line: line["doc_id"] % 2)

    change_samples(arms[1], "mul20", gathered)
    assert task_of(judge(*arms, *MARGIN).json, "mul20")["num_lost"] == 8


def test_results_before_samples_had_hashes_are_named(arms: Arms) -> None:
    change_samples(arms[1], "mul20", lambda lines: [line.pop("doc_hash") for line in lines])
    assert "has no 'doc_hash', as samples of lm-eval 0.4.3 or later" in refusal(*arms, *MARGIN)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"results": 1}', "\x00", '{"a": 1e999}'])
def test_broken_results_are_refused(arms: Arms, text: str) -> None:
    results_of(arms[1]).write_text(text)
    refusal(*arms, *MARGIN)


@pytest.mark.parametrize("text", ["", "[]\n", "{\n", '{"doc_id": 0}\n', "null\n"])
def test_broken_samples_are_refused(arms: Arms, text: str) -> None:
    samples_of(arms[1], "mul20").write_text(text)
    refusal(*arms, *MARGIN)


def test_what_was_chosen_is_shown_as_text(arms: Arms) -> None:
    tasks = {task.name: task for task in read_recorded(arms[0]).tasks}
    first = tasks["cmp20"].answers[0]
    assert (first.target, first.answer, first.finish) == (" 297", " 297", "scored")


@pytest.mark.parametrize(("ratio", "decision"), [(1.0, "GO"), (1.2, "NO-GO")])
def test_a_recorded_perplexity_is_paired_by_document(
    arms: Arms, tmp_path: Path, ratio: float, decision: str
) -> None:
    for folder, loss in zip(arms, (0.0, math.log(ratio)), strict=True):

        def read(lines: list[dict[str, Any]], loss: float = loss) -> None:
            for line in lines:
                words = 10 + line["doc_id"]
                noise = 0.001 * (-1) ** line["doc_id"] if loss else 0.0
                line["word_perplexity"] = [-(2.0 + loss + noise) * words, words]
                line["metrics"] = [*line["metrics"], "word_perplexity"]

        change_samples(folder, "mul20", read)
    rising = {"margin": None, "relative_margin": 0.05, "spread": 0.1}
    suite = write_suite(tmp_path, metric="word_perplexity", **rising)
    done = judge(*arms, "--suite", suite, "--missing-evidence", "go")
    task = task_of(done.json, "mul20")
    assert (task["decision"], task["scale"]) == (decision, "perplexity")
    assert task["baseline"] == pytest.approx(math.exp(2.0))
    assert task["ratio"]["observed"] == pytest.approx(ratio, rel=1e-3)
