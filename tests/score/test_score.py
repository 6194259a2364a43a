"""lm-eval through one door, on a model whose answers are known."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import shipped
from harness.artifacts import Scorecard, load, read_samples
from harness.errors import EngineError, ReasonCode, RunDirectoryError, ScoringError, SuiteError
from harness.score import read_arm, score
from harness.score.reference_lm import ReferenceLM

ALPHABET: Mapping[str, str] = {"a": "b", "b": "\n", "k": "k", "?": "<|end|>"}
MULTIPLE_CHOICE = {"metric": "acc", "items": 2, "chance": 0.5}

pytestmark = pytest.mark.usefixtures("tasks")
Make = Callable[..., Any]


@pytest.fixture
def scored(served: Make, spec: Make, suite: Make, tmp_path: Path) -> Scorecard:
    tasks = (spec(), spec("tiny_choice", **MULTIPLE_CHOICE))
    return score(served(ALPHABET), suite(*tasks), arm="candidate", into=tmp_path / "out")


def test_each_answer_says_how_it_ended(scored: Scorecard, tmp_path: Path) -> None:
    del scored
    samples = read_samples(tmp_path / "out" / "samples" / "tiny_next.jsonl")
    assert [(s.answer, s.finish, s.value) for s in samples] == [
        ("b", "stop", 1.0),
        ("b", "stop", 1.0),
        ("kkkkkk", "length", 1.0),
        ("", "stop", 0.0),
    ]
    assert [s.doc_id for s in samples] == [0, 1, 2, 3]
    assert samples[1].prompt == "a longer prompt: a"


def test_empties_and_truncations_are_counted_apart(scored: Scorecard) -> None:
    task = scored.tasks[0]
    assert (task.num_items, task.num_errors, task.num_empty, task.num_truncated) == (4, 0, 1, 1)
    assert task.value == 0.75
    assert task.num_prompts_cut == 0


def test_a_multiple_choice_item_shows_the_chosen_text(scored: Scorecard, tmp_path: Path) -> None:
    samples = read_samples(tmp_path / "out" / "samples" / "tiny_choice.jsonl")
    assert [(s.answer, s.target, s.finish, s.value) for s in samples] == [
        ("b", "b", "scored", 1.0),
        ("b", "c", "scored", 0.0),
    ]
    assert scored.tasks[1].value == 0.5


def test_the_scorecard_records_what_shapes_answers(scored: Scorecard) -> None:
    arguments = json.loads(scored.generation["tiny_next"])
    assert arguments["generation"]["max_gen_toks"] == 6
    assert arguments["generation"]["until"] == ["\n"]
    assert (arguments["seed"], arguments["thinking"]) == (1, False)
    others = {"apply_chat_template", "chats_rendered_by", "think_end_token", "thinking_budget"}
    others |= {"batch_size", "max_model_len", "num_fewshot", "output_type"}
    assert arguments.keys() == {"generation", "seed", "thinking"} | others
    assert scored.lm_eval_version


def test_each_sample_carries_the_group_that_the_suite_names(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    grouped = suite(spec(cluster="target", clusters=3))
    score(served(ALPHABET), grouped, arm="candidate", into=tmp_path / "out")
    samples = read_samples(tmp_path / "out" / "samples" / "tiny_next.jsonl")
    assert [s.cluster for s in samples] == ["b", "b", "kkkkkk", "never"]


def test_a_group_that_items_do_not_have_is_refused_before_any_is_asked(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    grouped = suite(spec(cluster="subject", clusters=3))
    with pytest.raises(SuiteError, match=r"without the field 'subject' .* only prompt, target"):
        score(served({}), grouped, arm="candidate", into=tmp_path / "out")
    assert not list((tmp_path / "out" / "samples").iterdir())


def test_a_prompt_that_does_not_fit_is_counted(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    tasks = (spec(), spec("tiny_choice", **MULTIPLE_CHOICE))
    short = suite(*tasks, max_model_len=12)
    card = score(served(ALPHABET), short, arm="candidate", into=tmp_path)
    assert [task.num_prompts_cut for task in card.tasks] == [1, 0]
    card = score(
        served(ALPHABET), suite(tasks[1], max_model_len=1, digest="e" * 64), arm="a", into=tmp_path
    )
    assert card.tasks[0].num_prompts_cut == 1


def test_a_failed_request_is_counted_and_is_no_wrong_answer(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    broken = served(ALPHABET, broken="k?")
    card = score(broken, suite(spec()), arm="candidate", into=tmp_path)
    task = card.tasks[0]
    assert (task.num_items, task.num_errors, task.num_truncated, task.num_empty) == (4, 2, 0, 0)
    assert task.value == 1.0
    samples = read_samples(tmp_path / task.samples)
    assert [s.finish for s in samples] == ["stop", "stop", "error", "error"]
    assert "not finite" in samples[2].answer


def test_a_log_likelihood_that_is_no_number_is_a_failed_request(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    broken = served(ALPHABET, broken="x")
    tasks = suite(spec("tiny_choice", **MULTIPLE_CHOICE))
    task = score(broken, tasks, arm="candidate", into=tmp_path).tasks[0]
    assert (task.num_errors, task.value) == (1, 0.0)


def test_a_task_of_which_every_request_failed_has_no_score(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match="every request of task 'tiny_next' failed"):
        score(served(ALPHABET, broken="ak?"), suite(spec()), arm="candidate", into=tmp_path)


def test_fewer_items_than_are_asked_are_an_error(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    with pytest.raises(SuiteError, match="has 4 items, the suite asks for 5"):
        score(served(ALPHABET), suite(spec(items=5)), arm="candidate", into=tmp_path)
    assert not (tmp_path / "scorecard.json").exists()


def test_batches_give_the_answers_of_single_prompts(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    for size in (1, 4):
        score(served(ALPHABET), suite(spec(), batch_size=size), arm="a", into=tmp_path / str(size))
    one, four = (read_samples(tmp_path / s / "samples" / "tiny_next.jsonl") for s in "14")
    assert one == four


class Killed(BaseException):
    """Stands for a signal: nothing in harness catches it."""


def test_a_killed_run_asks_only_the_unfinished_tasks(
    served: Make, spec: Make, suite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = suite(spec(), spec("tiny_choice", **MULTIPLE_CHOICE))

    def die(*_: object, **__: object) -> None:
        raise Killed

    first = served(ALPHABET)
    monkeypatch.setattr(ReferenceLM, "loglikelihood", die)
    with pytest.raises(Killed):
        score(first, tasks, arm="candidate", into=tmp_path)
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["tiny_next.json"]
    assert not (tmp_path / "scorecard.json").exists()

    monkeypatch.undo()
    monkeypatch.setattr(shipped, "tasks", lambda: tmp_path / "shipped")
    monkeypatch.setattr(ReferenceLM, "generate_until", die)
    card = score(served(ALPHABET), tasks, arm="candidate", into=tmp_path)
    assert [task.task for task in card.tasks] == ["tiny_next", "tiny_choice"]


def test_another_checkpoint_is_scored_anew(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    score(served(ALPHABET), suite(spec()), arm="candidate", into=tmp_path)
    worse = {**ALPHABET, "a": "c", "c": "\n"}
    card = score(served(worse, digest="f"), suite(spec()), arm="candidate", into=tmp_path)
    assert card.tasks[0].value == 0.25


def test_samples_that_were_changed_are_scored_anew(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    card = score(served(ALPHABET), suite(spec()), arm="candidate", into=tmp_path)
    (tmp_path / card.tasks[0].samples).write_text("")
    assert score(served(ALPHABET), suite(spec()), arm="candidate", into=tmp_path) == card


def test_an_arm_is_read_back_whole(scored: Scorecard, tmp_path: Path) -> None:
    arm = read_arm(tmp_path / "out")
    assert arm.scorecard == scored == load(Scorecard, tmp_path / "out" / "scorecard.json")
    assert [len(samples) for samples in arm.samples.values()] == [4, 2]


def test_samples_that_were_not_scored_are_refused(scored: Scorecard, tmp_path: Path) -> None:
    path = tmp_path / "out" / scored.tasks[0].samples
    path.write_text(path.read_text().replace('"value": 0.0', '"value": 1.0'))
    with pytest.raises(RunDirectoryError, match="not the file that was scored"):
        read_arm(tmp_path / "out")


def test_lack_of_memory_is_named(
    served: Make, spec: Make, suite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = served(ALPHABET)

    def exhaust(**_: object) -> None:
        message = "CUDA out of memory"
        raise torch.OutOfMemoryError(message)

    monkeypatch.setattr(made.model, "generate", exhaust)
    with pytest.raises(EngineError, match="no memory was left") as caught:
        score(made, suite(spec()), arm="candidate", into=tmp_path)
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY


def test_what_a_task_draws_while_it_is_loaded_is_the_same_in_both_arms(
    served: Make, spec: Make, suite: Make, tmp_path: Path, tasks: Path
) -> None:
    (tasks / "mixing.py").write_text(
        "import random\n\ndef mix(docs):\n    rows = list(docs)\n    random.shuffle(rows)\n"
        "    return docs.from_list(rows)\n"
    )
    with (tasks / "tiny_next.yaml").open("a") as file:
        file.write("process_docs: !function mixing.mix\n")
    asked = suite(spec())
    for arm in ("baseline", "candidate"):
        score(served(ALPHABET), asked, arm=arm, into=tmp_path / arm)
    one, two = (
        read_samples(tmp_path / arm / "samples" / "tiny_next.jsonl")
        for arm in ("baseline", "candidate")
    )
    assert one == two


def test_nothing_is_printed(scored: Scorecard, capfd: pytest.CaptureFixture[str]) -> None:
    del scored
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_each_answers_tokens_are_counted_with_the_one_that_ends_it(
    scored: Scorecard, tmp_path: Path
) -> None:
    del scored
    samples = read_samples(tmp_path / "out" / "samples" / "tiny_next.jsonl")
    assert [(s.num_tokens, s.num_thought_tokens) for s in samples] == [
        (2, None),
        (2, None),
        (6, None),
        (1, None),
    ]
    chosen = read_samples(tmp_path / "out" / "samples" / "tiny_choice.jsonl")
    assert {s.num_tokens for s in chosen} == {None}


def test_thoughts_are_counted_apart(served: Make, spec: Make, suite: Make, tmp_path: Path) -> None:
    thinks = {"?": "m", "m": "n", "n": "/", "/": "b", "b": "<|end|>", "a": "b", "k": "k"}
    how = {"thinking": True, "think_end_token": "/", "thinking_budget": 5}
    thinking = suite(spec(), **how)
    score(served(thinks), thinking, arm="candidate", into=tmp_path / "out")
    samples = read_samples(tmp_path / "out" / "samples" / "tiny_next.jsonl")
    # `?` thinks m, n and the end of it, then answers; `k` never ends its thoughts.
    assert (samples[3].num_tokens, samples[3].num_thought_tokens) == (5, 3)
    assert (samples[2].num_tokens, samples[2].num_thought_tokens) == (11, 11)
    assert samples[2].finish == "thoughts_cut"
