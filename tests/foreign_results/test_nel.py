"""`harness judge` on NeMo Evaluator's results of both generations, by hand, and every refusal.

20 sums were asked of a server of OpenAI's whose wrong answers are known: the baseline has 3 and 11
wrong, the candidate 3, 4, 7 and 15, and the answer to 15 is said to have been cut. `bundle` is of
`nel eval run` 0.3.0; `lm_eval` and `byob` are of `nemo-evaluator run_eval` 0.2.8, with
nvidia-lm-eval 26.3 and a benchmark of one's own.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.foreign import read_recorded
from tests.foreign_results.conftest import DATA, change_results, judge, refusal

Arms = tuple[Path, Path]
MARGIN = ("--margin", 0.02)
KINDS = ("bundle", "lm_eval", "byob")


def copied(kind: str, into: Path) -> Arms:
    for arm in ("baseline", "candidate"):
        shutil.copytree(DATA / "nel" / kind / arm, into / arm)
    return into / "baseline", into / "candidate"


@pytest.fixture(params=KINDS)
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Arms:
    return copied(request.param, tmp_path)


@pytest.fixture
def bundles(tmp_path: Path) -> Arms:
    return copied("bundle", tmp_path)


@pytest.fixture
def byob(tmp_path: Path) -> Arms:
    return copied("byob", tmp_path)


def bundle_of(arm: Path) -> Path:
    (found,) = arm.glob("*/eval-*.json")
    return found


def change_bundle(arm: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = bundle_of(arm)
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def change_rows(
    file: Path, change: Callable[[list[dict[str, Any]]], object], *, told: bool = True
) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def tell(values: dict[str, Any]) -> None:
        values["n_results"] = values["benchmark"]["samples"] = len(rows)
        values["benchmark"]["scores"] = {}

    if told and file.name == "results.jsonl":
        change_bundle(file.parents[1], tell)


def change_config(arm: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = arm / "run_config.yml"
    values = yaml.safe_load(file.read_text())
    change(values)
    file.write_text(yaml.dump(values))


def rows_of(arm: Path) -> Path:
    return bundle_of(arm).with_name("results.jsonl")


def test_the_table_is_the_one_made_by_hand(each: Arms) -> None:
    (task,) = judge(*each, *MARGIN).json["tasks"]
    assert (task["num_items"], task["num_lost"], task["num_won"]) == (20, 3, 1)
    assert task["baseline"] == pytest.approx(18 / 20)
    assert task["candidate"] == pytest.approx(16 / 20)


def test_the_flips_are_the_items_found_by_hand(each: Arms) -> None:
    flips = judge(*each, *MARGIN).json["flips"]
    assert {flip["doc_id"] for flip in flips if flip["lost"]} == {4, 7, 15}
    assert [flip["doc_id"] for flip in flips if not flip["lost"]] == [11]


def test_an_answer_that_was_cut_counts(each: Arms) -> None:
    done = judge(*each, *MARGIN)
    assert (done.code, done.json["reason_codes"][0]) == (5, "truncated-answers")


def test_the_kind_of_the_records_decides_what_is_not_known(bundles: Arms) -> None:
    gaps = [gap.reason for gap in read_recorded(bundles[0]).gaps]
    assert gaps == ["load-not-reconciled", "kernels-unknown"]
    bundle_of(bundles[0]).with_name("trajectories.jsonl").unlink()
    assert read_recorded(bundles[0]).gaps[-1].reason == "endings-unknown"


def test_generated_tokens_are_kept(bundles: Arms) -> None:
    (task,) = read_recorded(bundles[0]).tasks
    assert {answer.num_tokens for answer in task.answers} == {2}


def test_sampling_that_is_not_recorded_is_said(bundles: Arms) -> None:
    scope = " ".join(judge(*bundles, *MARGIN).json["scope"])
    assert "with which temperature, max_tokens, top_p sums20 was asked" in scope


def test_a_bundle_itself_is_read(bundles: Arms) -> None:
    (task,) = judge(*map(bundle_of, bundles), *MARGIN).json["tasks"]
    assert task["num_lost"] == 3


def test_artifacts_as_the_launcher_lays_them_are_read(byob: Arms, tmp_path: Path) -> None:
    for arm in byob:
        shutil.copytree(arm, tmp_path / "run" / arm.name / "sums" / "artifacts")
    (task,) = judge(*(tmp_path / "run" / a.name for a in byob), *MARGIN).json["tasks"]
    assert task["num_lost"] == 3


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "temperature": (lambda c: c.update(temperature=1.0), "temperature"),
    "repeats": (lambda c: c.update(shuffle_seed=7), "shuffle_seed"),
    "instruction": (lambda c: c.update(system_prompt="Be brief."), "system_prompt"),
    "scorers": (lambda c: c.update(scorers=["fuzzy"]), "scorers"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_other_settings_of_a_bundle_are_refused_by_name(bundles: Arms, name: str) -> None:
    change, said = CONFIGS[name]
    change_bundle(bundles[1], lambda values: change(values["config"]))
    assert f"the arms differ in {said} of task 'sums20'" in refusal(*bundles, *MARGIN)


def test_another_version_is_refused(bundles: Arms) -> None:
    change_bundle(bundles[1], lambda values: values.update(sdk_version="0.4.0"))
    text = refusal(*bundles, *MARGIN)
    assert "NeMo Evaluator's version of task 'sums20'" in text


def test_a_part_of_a_benchmark_is_refused(bundles: Arms) -> None:
    for arm in bundles:
        change_bundle(arm, lambda v: v["config"].update(max_problems=20))
        change_bundle(arm, lambda v: v["config"]["shuffle"].update(ds_full_size=1319))
    assert "20 of 1319 items were asked (max_problems 20)" in refusal(*bundles, *MARGIN)


def test_one_shard_of_several_is_refused(bundles: Arms) -> None:
    for arm in bundles:
        change_bundle(arm, lambda v: v["config"].update(shard={"idx": 0, "total": 2}))
    assert "items of one shard alone" in refusal(*bundles, *MARGIN)


def test_fewer_answers_than_were_asked_are_refused(bundles: Arms) -> None:
    change_rows(rows_of(bundles[1]), lambda rows: rows.pop(), told=False)
    text = refusal(*bundles, *MARGIN)
    assert "has 19 answers, and" in text
    assert "says 20" in text


def test_scores_without_answers_are_refused(bundles: Arms) -> None:
    rows_of(bundles[1]).unlink()
    assert "has scores and no results.jsonl beside it" in refusal(*bundles, *MARGIN)


def test_an_item_that_is_there_twice_is_refused(bundles: Arms) -> None:
    change_rows(rows_of(bundles[1]), lambda rows: rows.append(rows[0]))
    assert "the candidate has item '14' twice" in refusal(*bundles, *MARGIN)


def test_an_item_that_lacks_is_refused(bundles: Arms) -> None:
    change_rows(rows_of(bundles[1]), lambda rows: rows.pop(0))
    change_bundle(bundles[1], lambda values: values["config"].pop("shuffle"))
    change_bundle(bundles[0], lambda values: values["config"].pop("shuffle"))
    assert "the candidate has no answer to item '14'" in refusal(*bundles, *MARGIN)


def test_another_prompt_is_refused(bundles: Arms) -> None:
    change_rows(rows_of(bundles[1]), lambda rows: rows[0].update(prompt="What is 14 + 18?"))
    assert "item 14: prompt_hash differs" in refusal(*bundles, *MARGIN)


def test_answers_that_were_changed_are_refused(bundles: Arms) -> None:
    def mend(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["reward"] == 0).update(reward=1.0)

    change_rows(rows_of(bundles[1]), mend, told=False)
    assert "was changed, or is of another run: its reward is 0.8500" in refusal(*bundles, *MARGIN)


@pytest.mark.parametrize("value", ["good", None, -1.0, [1]])
def test_a_reward_that_is_no_fraction_is_named(bundles: Arms, value: object) -> None:
    change_rows(rows_of(bundles[1]), lambda rows: rows[0].update(reward=value))
    text = refusal(*bundles, *MARGIN)
    assert f"task 'sums20', item 14: metric reward is {value!r}, no number between" in text


def test_a_request_that_failed_is_unknown_and_not_wrong(bundles: Arms) -> None:
    failed = {"error": "refused", "error_category": "infra_error"}
    change_rows(rows_of(bundles[1]), lambda rows: rows[0].update(scoring_details=failed))
    (task,) = judge(*bundles, *MARGIN).json["tasks"]
    assert (task["num_items"], task["reason"]) == (19, "request-errors")


def test_repeats_of_a_problem_are_one_item(bundles: Arms) -> None:
    for arm in bundles:
        change_rows(rows_of(arm), lambda rows: rows.extend([r | {"repeat": 1} for r in rows]))
        change_bundle(arm, lambda v: v["benchmark"].update(samples=20, repeats=2))
    (task,) = judge(*bundles, *MARGIN).json["tasks"]
    assert (task["num_items"], task["num_lost"]) == (20, 3)


def test_several_models_in_one_folder_are_refused(bundles: Arms, tmp_path: Path) -> None:
    both = tmp_path / "both"
    for arm in bundles:
        shutil.copytree(arm / "sums20", both / arm.name)
    assert "holds results of 2 models: base, cand" in refusal(both, bundles[1], *MARGIN)


def test_of_several_bundles_the_latest_counts_and_is_named(bundles: Arms) -> None:
    file = bundle_of(bundles[0])
    earlier = json.loads(file.read_text()) | {"timestamp": "2020-01-01", "sdk_version": "0.0.1"}
    file.with_name("eval-20200101T000000Z-sums20.json").write_text(json.dumps(earlier))
    scope = " ".join(judge(*bundles, *MARGIN).json["scope"])
    assert "2 bundles are of sums20: the latest" in scope


PARAMS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "temperature": (lambda c: c["config"]["params"].update(temperature=1.0), "temperature"),
    "budget": (lambda c: c["config"]["params"].update(max_new_tokens=9), "max_new_tokens"),
    "command": (lambda c: c.update(command="other"), "NeMo Evaluator's command"),
    "endpoint": (
        lambda c: c["target"]["api_endpoint"].update(type="completions"),
        "the kind of endpoint",
    ),
    "instruction": (
        lambda c: c["target"]["api_endpoint"]["adapter_config"]["interceptors"].append(
            {"name": "system_message", "enabled": True, "config": {"system_message": "x"}}
        ),
        "what stands between (interceptors)",
    ),
}


@pytest.mark.parametrize("name", PARAMS)
def test_other_settings_of_artifacts_are_refused_by_name(byob: Arms, name: str) -> None:
    change, said = PARAMS[name]
    change_config(byob[1], change)
    text = refusal(*byob, *MARGIN)
    assert f"the arms differ in {said} of task 'sums20b'" in text


def test_how_requests_are_sent_changes_nothing(byob: Arms) -> None:
    change_config(byob[1], lambda c: c["config"]["params"].update(parallelism=64))
    assert judge(*byob, *MARGIN).json["tasks"][0]["num_lost"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_one_run_copied_to_both_places_is_refused(tmp_path: Path, kind: str) -> None:
    baseline, candidate = copied(kind, tmp_path)
    shutil.rmtree(candidate)
    shutil.copytree(baseline, candidate)
    assert "hold the same run" in refusal(baseline, candidate, *MARGIN)


def test_a_run_within_artifacts_is_the_same_alone(tmp_path: Path) -> None:
    baseline, _ = copied("lm_eval", tmp_path)
    assert "hold the same run" in refusal(baseline / "base", baseline, *MARGIN)


def test_one_run_among_several_in_both_places_is_refused(byob: Arms, tmp_path: Path) -> None:
    for arm in byob:
        for name, source in (("a", byob[0]), ("b", arm)):
            folder = tmp_path / f"of-{arm.name}" / name
            shutil.copytree(source, folder)
            (folder / "sums20b").rename(folder / name)
            change_config(folder, lambda c: c["target"]["api_endpoint"].update(model_id="m"))
    runs = (tmp_path / "of-baseline", tmp_path / "of-candidate")
    assert "hold the same run" in refusal(*runs, *MARGIN)


def test_runs_with_the_same_answers_are_two(byob: Arms) -> None:
    file = byob[1] / "sums20b"
    shutil.rmtree(file)
    shutil.copytree(byob[0] / "sums20b", file)
    assert judge(*byob, *MARGIN).json["tasks"][0]["num_lost"] == 0


@pytest.mark.parametrize("kind", ["byob", "common"])
def test_a_limit_of_samples_is_a_part(byob: Arms, kind: str) -> None:
    if kind == "common":
        as_common(byob)
    for arm in byob:
        change_config(arm, lambda c: c["config"]["params"].update(limit_samples=20))
    assert "20 items alone were asked (limit_samples 20)" in refusal(*byob, *MARGIN)


def test_a_limit_within_artifacts_that_left_out_nothing_is_none(tmp_path: Path) -> None:
    arms = copied("lm_eval", tmp_path)
    for arm in arms:
        change_config(arm, lambda c: c["config"]["params"].update(limit_samples=9999))
    assert judge(*arms, *MARGIN).json["tasks"][0]["num_lost"] == 3


def test_a_ratio_of_samples_is_a_part(tmp_path: Path) -> None:
    arms = copied("lm_eval", tmp_path)
    for arm in arms:
        change_config(arm, lambda c: c["config"]["params"]["extra"].update(downsampling_ratio=0.1))
    assert "20 items alone were asked (downsampling_ratio 0.1)" in refusal(*arms, *MARGIN)


def test_a_limit_of_a_benchmark_of_unknown_size_is_a_part(bundles: Arms) -> None:
    for arm in bundles:
        change_bundle(arm, lambda v: v["config"].update(max_problems=20))
        change_bundle(arm, lambda v: v["config"].update(shuffle={"seed": 1}))
    assert "20 items alone were asked (max_problems 20)" in refusal(*bundles, *MARGIN)


def test_settings_with_keys_that_are_no_texts_are_compared(byob: Arms) -> None:
    for arm, value in zip(byob, (1, 2), strict=True):

        def say(config: dict[str, Any], value: int = value) -> None:
            config["config"]["params"]["extra"]["classes"] = {1: value, "b": 0}

        change_config(arm, say)
    assert "the arms differ in classes of task" in refusal(*byob, *MARGIN)


@pytest.mark.parametrize("count", [-1, True, "2", None])
def test_a_length_that_is_no_count_is_unknown(bundles: Arms, count: object) -> None:
    file = bundle_of(bundles[1]).with_name("trajectories.jsonl")
    change_rows(file, lambda rows: rows[0]["model"]["tokens"].update(completion=count))
    (task,) = read_recorded(bundles[1]).tasks
    assert [answer.num_tokens for answer in task.answers].count(None) == 1
    assert judge(*bundles, *MARGIN).json["tasks"][0]["num_lost"] == 3


def test_two_harnesses_are_refused(tmp_path: Path) -> None:
    arms = copied("byob", tmp_path / "a")[0], copied("lm_eval", tmp_path / "b")[1]
    text = refusal(*arms, "--suite", "canary")
    assert "were scored by byob_sums20b, those in" in text


def test_predictions_that_were_changed_are_refused(byob: Arms) -> None:
    (file,) = byob[1].glob("*/byob_predictions.jsonl")
    change_rows(file, lambda rows: rows[3].update(scores={"correct": True}))
    assert "was changed, or is of another run: correct of 20 answers" in refusal(*byob, *MARGIN)


def test_a_prediction_that_was_skipped_is_unknown(byob: Arms) -> None:
    for arm in byob:
        (file,) = arm.glob("*/byob_predictions.jsonl")
        change_rows(file, lambda rows: rows[0].update(status="skipped_model_error", scores=None))
        file.with_name("byob_results.json").write_text("{}")
    (task,) = judge(*byob, *MARGIN).json["tasks"]
    assert (task["num_items"], task["reason"]) == (19, "request-errors")


def test_a_run_that_did_not_end_is_refused(byob: Arms) -> None:
    for file in byob[1].glob("*/byob_results.json"):
        file.unlink()
    assert "has no results.yml: the run of NeMo Evaluator did not come" in refusal(*byob, *MARGIN)


def test_artifacts_without_answers_are_refused(byob: Arms) -> None:
    for arm in byob:
        (file,) = arm.glob("*/byob_predictions.jsonl")
        file.unlink()
    text = refusal(*byob, *MARGIN)
    assert "has scores of byob_sums20b and no answers that are read here" in text


def test_lm_eval_within_artifacts_is_asked_as_lm_eval_alone(tmp_path: Path) -> None:
    arms = copied("lm_eval", tmp_path)
    change_results(arms[1] / "cand", lambda values: values["versions"].update(sums20=2.0))
    assert "the arms differ in the task's version" in refusal(*arms, *MARGIN)


def test_lm_eval_alone_is_compared_with_lm_eval_within(tmp_path: Path) -> None:
    arms = copied("lm_eval", tmp_path)
    done = judge(arms[0] / "base", arms[1], *MARGIN)
    assert done.json["tasks"][0]["num_lost"] == 3
    assert "what only one records is not compared" in " ".join(done.json["scope"])


def as_skills(byob: Arms, repeats: int = 1) -> None:
    """Lay the answers as NeMo-Skills does, a file a repeat."""
    for arm in byob:
        (file,) = arm.glob("*/byob_predictions.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        folder = arm / "eval-results" / "sums"
        folder.mkdir(parents=True)
        for repeat in range(repeats):
            lines = [skill(row) for row in rows]
            name = f"output-rs{repeat}.jsonl" if repeats > 1 else "output.jsonl"
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        shutil.rmtree(file.parent)
        (arm / "results.yml").write_text("results: {}\n")


def skill(row: dict[str, Any]) -> dict[str, Any]:
    said = {"problem": row["prompt"], "expected_answer": row["target"]}
    return said | {"generation": row["response"], "symbolic_correct": row["scores"]["correct"]}


@pytest.mark.parametrize("repeats", [1, 3])
def test_nemo_skills_answers_are_read(byob: Arms, repeats: int) -> None:
    as_skills(byob, repeats)
    (task,) = judge(*byob, *MARGIN).json["tasks"]
    assert (task["task"], task["num_items"], task["num_lost"]) == ("sums", 20, 3)


def as_common(byob: Arms, *, alone: bool = True) -> None:
    """Lay the answers in the common form, alone or beside what the harness wrote."""
    for arm in byob:
        (file,) = arm.glob("*/byob_predictions.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        folder = arm / "nemo-evaluator-per-sample-outputs"
        folder.mkdir()
        lines = [json.dumps(common(row)) + "\n" for row in rows]
        (folder / "sums.jsonl").write_text("".join(lines))
        if alone:
            shutil.rmtree(file.parent)
            (arm / "results.yml").write_text("results: {}\n")


@pytest.mark.parametrize("alone", [True, False])
def test_the_common_form_of_samples_is_read_once(byob: Arms, *, alone: bool) -> None:
    as_common(byob, alone=alone)
    verdict = judge(*byob, *MARGIN).json
    (task,) = verdict["tasks"]
    assert (task["task"], task["num_items"], task["num_lost"]) == ("sums", 20, 3)
    for arm in byob:
        said = f"the answers to sums in '{arm}' were not compared with its results"
        assert said in verdict["scope"]


def test_answers_that_fit_their_results_are_not_spoken_of(byob: Arms) -> None:
    assert "were not compared" not in " ".join(judge(*byob, *MARGIN).json["scope"])


def common(row: dict[str, Any]) -> dict[str, Any]:
    said = {"id": str(row["sample_id"]), "query": row["prompt"], "ground_truth": row["target"]}
    score = int(row["scores"]["correct"])
    return said | {"generation": row["response"], "score": score, "sub_query_id": 0}
