"""One arm of `harness score`, the other of lm-eval: judged if both were asked the same."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Arm, Scorecard, save, write_samples
from harness.foreign import read_recorded, write_as
from harness.foreign.arms import to_arm
from harness.recipe import load_suite
from harness.score import read_arm
from harness.score.arm import sha256_of
from tests.foreign_results.conftest import change_results, change_samples, judge, refusal
from tests.foreign_results.test_lm_eval import write_suite
from tests.nouns import deployment

Change = Callable[[Scorecard], Scorecard]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path)


def write_own(folder: Path, lm_eval: Path, suite: Path, change: Change = lambda card: card) -> Path:
    """Write what `harness score` writes, with the answers of an arm of lm-eval's."""
    arm: Arm = to_arm(read_recorded(lm_eval), load_suite(str(suite)), arm="candidate")
    (folder / "samples").mkdir(parents=True)
    file = folder / "samples" / "mul20.jsonl"
    write_samples(arm.samples["mul20"], file)
    (score,) = arm.scorecard.tasks
    score = dataclasses.replace(
        score, samples="samples/mul20.jsonl", samples_sha256=sha256_of(file)
    )
    generation = json.loads(arm.scorecard.generation["mul20"]) | {"seed": 1, "batch_size": 1}
    card = dataclasses.replace(
        arm.scorecard,
        tasks=(score,),
        deployment=deployment(),
        generation={"mul20": json.dumps(generation)},
    )
    save(change(card), folder / "scorecard.json")
    return folder


def test_ours_is_the_baseline_where_it_is_named_first(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    done = judge(own, arms[1], "--suite", suite)
    assert (done.code, done.json["tasks"][0]["num_lost"]) == (4, 8)
    assert "not compared, for one arm does not record them: batch_size, seed" in done.json["scope"]


def test_ours_stays_ours_with_another_tool_s_layout_in_its_folder(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    shutil.copytree(arms[1], own / "as-lm-eval")
    done = judge(own, arms[1], "--suite", suite)
    assert done.json["tasks"][0]["baseline"] == 0.9
    assert done.json["scope"][0].endswith(f"compared with the scores of harness in '{own}'")


def test_ours_is_the_candidate_where_it_is_named_second(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    own = write_own(tmp_path / "own", arms[1], suite)
    done = judge(arms[0], own, "--suite", suite)
    assert (done.code, done.json["tasks"][0]["num_lost"]) == (4, 8)


def test_a_candidate_of_ours_that_was_not_verified_never_ends_go(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    loose = ("--suite", suite, "--margin", 0.3, "--missing-evidence", "go")
    done = judge(arms[0], own, *loose)
    assert (done.code, done.json["reason_codes"]) == (5, ["verify-skipped"])


def test_other_prompts_are_refused(arms: tuple[Path, Path], suite: Path, tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    change_samples(arms[1], "mul20", lambda lines: lines[3].update(prompt_hash="f" * 64))
    assert "item 3: prompt_hash differs" in refusal(own, arms[1], "--suite", suite)


def test_another_version_is_refused(arms: tuple[Path, Path], suite: Path, tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    change_results(arms[1], lambda values: values.update(lm_eval_version="0.4.9"))
    assert "differ in lm-eval's version" in refusal(own, arms[1], "--suite", suite)


def test_other_arguments_are_refused(arms: tuple[Path, Path], suite: Path, tmp_path: Path) -> None:
    def more(values: dict[str, Any]) -> None:
        values["configs"]["mul20"]["generation_kwargs"]["max_gen_toks"] = 99

    own = write_own(tmp_path / "own", arms[0], suite)
    change_results(arms[1], more)
    assert "differ in generation of task 'mul20'" in refusal(own, arms[1], "--suite", suite)


def served_from(folder: Path) -> Change:
    def change(card: Scorecard) -> Scorecard:
        return dataclasses.replace(card, deployment=deployment(model=str(folder)))

    return change


def loaded(folder: Path, model: object, **arguments: object) -> None:
    """Say that lm-eval loaded a model, with arguments."""

    def say(values: dict[str, Any]) -> None:
        values["model_name"] = str(model)
        values["config"]["model_args"] = {"pretrained": str(model)} | arguments

    change_results(folder, say)


@pytest.mark.parametrize("is_baseline", [True, False])
def test_lm_eval_s_results_of_our_model_are_refused(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path, *, is_baseline: bool
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    loaded(arms[1], tmp_path / "arms" / ".." / "model")
    own = write_own(tmp_path / "own", arms[0], suite, served_from(model))
    (tmp_path / "arms").mkdir()
    both = (own, arms[1]) if is_baseline else (arms[1], own)
    assert f"are of the same model '{model}'" in refusal(*both, "--suite", suite)


def test_a_model_in_the_hub_s_cache_is_its_repository(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    cached = tmp_path / "models--team--base" / "snapshots" / "abc"
    loaded(arms[1], "team/base")
    own = write_own(tmp_path / "own", arms[0], suite, served_from(cached))
    assert "are of the same model" in refusal(own, arms[1], "--suite", suite)


@pytest.mark.parametrize(
    ("argument", "value"), [("load_in_4bit", True), ("quantization", "fp8"), ("peft", "adapter")]
)
def test_our_model_loaded_otherwise_by_lm_eval_is_judged(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path, argument: str, value: object
) -> None:
    loaded(arms[1], tmp_path, **{argument: value})
    own = write_own(tmp_path / "own", arms[0], suite, served_from(tmp_path))
    assert judge(own, arms[1], "--suite", suite).code == 4


def export(own: Path, suite: Path, into: Path) -> Path:
    """Write an arm of ours in lm-eval's layout, as `harness report --as` does."""
    write_as("lm-eval", {"arm": read_arm(own)}, load_suite(str(suite)), into)
    return into / "arm"


def test_our_own_export_is_the_same_run(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    written = export(own, suite, tmp_path / "as-lm-eval")
    assert "hold the same run" in refusal(own, written, "--suite", suite)


def test_an_export_of_our_model_s_other_run_is_the_same_model(
    arms: tuple[Path, Path], suite: Path, tmp_path: Path
) -> None:
    own = write_own(tmp_path / "own", arms[0], suite)
    later = write_own(tmp_path / "later", arms[1], suite, served_from(tmp_path / "elsewhere"))
    written = export(later, suite, tmp_path / "as-lm-eval")
    assert "are of the same model" in refusal(own, written, "--suite", suite)


def test_another_suite_is_refused(arms: tuple[Path, Path], suite: Path, tmp_path: Path) -> None:
    own = write_own(
        tmp_path / "own", arms[0], suite, lambda c: dataclasses.replace(c, suite_digest="0" * 64)
    )
    text = refusal(own, arms[1], "--suite", suite)
    assert "was scored with another suite" in text
