"""Answers that are drawn: each with its own seed, scored by itself, and asked for once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Sample, Scorecard, read_samples
from harness.errors import SuiteError
from harness.score import check_suite, score
from harness.score.asking import Drawing, Limits, Thoughts, seed_of
from harness.score.generation import generate
from harness.score.recording import Finish
from tests.score.conftest import NUM_TOKENS, make_model, make_tokenizer

Make = Callable[..., Any]
DRAWN = {"repeats": 3, "temperature": 1.0, "item_sd": 0.1, "repeat_sd": 0.5}
SUCCESSORS = {"a": "b", "b": "\n", "k": "k", "?": "<|end|>"}
NORM = NUM_TOKENS**0.5
"""Length that the last layer gives to what it reads."""
ONE = Limits(stops=(), answer_budget=1, drawing=Drawing())

pytestmark = pytest.mark.usefixtures("tasks")


def drawn(prompts: list[str], limits: Limits, seeds: list[int], scale: float = 4.0) -> list[str]:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, {"a": "b", "k": "k"})
    model.lm_head.weight.data *= scale
    tokens = [tokenizer.encode(prompt) for prompt in prompts]
    return [one.text for one in generate(model, tokenizer, tokens, limits, seeds=seeds)]


def test_an_answer_is_drawn_alike_whatever_is_asked_beside_it() -> None:
    limits = replace(ONE, answer_budget=6)
    seeds = list(range(5))
    together = drawn(["xa", "a", "k", "xxk", "aa"], limits, seeds)
    alone = [drawn([p], limits, [s])[0] for p, s in zip(["xa", "a"], seeds, strict=False)]
    assert together[:2] == alone
    assert len(set(drawn(["a"] * 20, limits, list(range(20))))) > 10


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    found = Counter(drawn(["a"] * 3000, ONE, list(range(3000)), scale=6.0 / NORM))
    weights = 2.718281828**6.0
    assert found["b"] / 3000 == pytest.approx(weights / (weights + 271), abs=0.03)


@pytest.mark.parametrize("how", [Drawing(top_k=1), Drawing(top_p=0.001), Drawing(0.01)])
def test_what_is_hardly_likely_can_be_left_out(how: Drawing) -> None:
    said = drawn(["a"] * 50, replace(ONE, drawing=how), list(range(50)))
    assert set(said) == {"b"}


def test_seeds_follow_from_suite_task_item_and_repeat() -> None:
    asked = [
        (1, ("t", 0, 0)),
        (2, ("t", 0, 0)),
        (1, ("u", 0, 0)),
        (1, ("t", 1, 0)),
        (1, ("t", 0, 1)),
    ]
    seeds = [seed_of(seed, item) for seed, item in asked]
    assert len(set(seeds)) == 5
    assert seeds == [seed_of(seed, item) for seed, item in asked]
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.fixture
def repeated(served: Make, spec: Make, suite: Make, tmp_path: Path) -> Callable[..., Any]:
    def make(into: str, **changes: object) -> tuple[Scorecard, tuple[Sample, ...]]:
        asked = suite(spec(**{**DRAWN, **changes}))
        model = served(SUCCESSORS)
        model.model.lm_head.weight.data *= 6.0 / NORM
        card = score(model, asked, arm="candidate", into=tmp_path / into)
        return card, read_samples(tmp_path / into / card.tasks[0].samples)

    return make


def test_each_repeat_is_scored_by_itself(repeated: Make) -> None:
    card, samples = repeated("out")
    assert [(s.doc_id, s.repeat) for s in samples] == [(i, r) for i in range(4) for r in range(3)]
    assert len({s.answer for s in samples}) > 4
    assert all(s.voted == s.answer for s in samples)
    task = card.tasks[0]
    assert (task.num_items, task.repeats, task.num_answers) == (4, 3, 12)
    assert task.value == pytest.approx(sum(s.value for s in samples) / 12)
    assert task.finishes == Counter(s.finish for s in samples)


def test_asked_again_it_answers_the_same(repeated: Make) -> None:
    assert repeated("first")[1] == repeated("second")[1]


def test_what_decides_the_draws_stands_in_the_scorecard(repeated: Make) -> None:
    how = repeated("out", top_p=0.9, top_k=5)[0].generation["tiny_next"]
    for part in (
        '"repeats": 3',
        '"temperature": 1.0',
        '"top_p": 0.9',
        '"top_k": 5',
        '"seeds": "of ',
    ):
        assert part in how


def test_greedy_answers_say_nothing_of_repeats(repeated: Make) -> None:
    card, _ = repeated("out", repeats=1, temperature=0.0)
    assert "repeats" not in card.generation["tiny_next"]


def test_the_standard_error_is_that_of_items(repeated: Make) -> None:
    card, samples = repeated("out")
    means = [sum(s.value for s in samples if s.doc_id == item) / 3 for item in range(4)]
    middle = sum(means) / 4
    variance = sum((m - middle) ** 2 for m in means) / 3
    assert card.tasks[0].stderr == pytest.approx((variance / 4) ** 0.5)


def test_of_multiple_choice_nothing_is_drawn(spec: Make, suite: Make) -> None:
    chosen = spec("tiny_choice", metric="acc", items=2, **DRAWN)
    with pytest.raises(SuiteError, match="nothing is drawn"):
        check_suite(suite(chosen))


def test_a_task_that_samples_needs_a_temperature_in_the_suite(
    tasks: Path, spec: Make, suite: Make
) -> None:
    file = tasks / "tiny_next.yaml"
    file.write_text(file.read_text().replace("do_sample: false", "top_p: 0.95"))
    with pytest.raises(SuiteError, match="Give the task a temperature"):
        check_suite(suite(spec()))
    check_suite(suite(spec(**DRAWN)))


def test_thoughts_that_never_end_are_told_from_answers_that_do_not() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, {"<": "/", "/": "b", "b": "b", "k": "k"})
    limits = Limits(stops=("\n",), answer_budget=3, thoughts=Thoughts("/", 3))
    prompts = [tokenizer.encode("<"), tokenizer.encode("k")]
    answer, thought = generate(model, tokenizer, prompts, limits)
    assert (answer.text, answer.finish) == ("bbb", Finish.LENGTH)
    assert (thought.text, thought.finish) == ("", Finish.THOUGHTS_CUT)
