"""Whichever engine answers, the same texts are the same outcomes of two budgets."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Endpoint, Sample, Suite, read_samples
from harness.errors import EngineError
from harness.score import score
from tests.score.conftest import END, GENERATE, write_task
from tests.score.http.fake import Script

Make = Callable[..., Any]
ENGINES = ("reference", "completions", "chat", "chat of a server that takes thoughts apart")
SHORT = {"a": "m", "m": "/", "/": "b", "b": END}
LATE = {"c": "d", "d": "e", "e": "f", "f": "g", "g": "/"}
ENDLESS = {"k": "k"}
LONG = {"/": "p", "p": "q", "q": "r", "r": "s", "s": "t", "t": "u", "u": "v", "v": END}


@pytest.fixture
def thinking(tasks: Path, spec: Make, suite: Make) -> Suite:
    """Three items: short thoughts, thoughts that end too late, thoughts that never do."""
    rows: list[dict[str, object]] = [{"prompt": f"x{one}", "target": "b"} for one in "ack"]
    for name in ("tiny_thoughts", "tiny_others"):
        write_task(tasks, name, rows, GENERATE)
    asked = spec("tiny_thoughts", items=3)
    made: Suite = suite(
        asked,
        apply_chat_template=True,
        thinking=True,
        think_end_token="/",  # noqa: S106 -- no secret
        thinking_budget=4,
    )
    return made


@pytest.fixture
def answer(
    served: Make, endpoint: Endpoint, script: Script, thinking: Suite, tmp_path: Path
) -> Callable[..., tuple[Sample, ...]]:
    def ask(engine: str, successors: Mapping[str, str]) -> tuple[Sample, ...]:
        template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        (Path(endpoint.tokenizer) / "chat_template.jinja").write_text(template)
        script.successors = successors
        script.parses = "/" if "apart" in engine else ""
        asked: Any = endpoint
        if engine == "reference":
            asked = served(successors)
            asked.tokenizer.chat_template = template
        elif engine.startswith("chat"):
            asked = replace(endpoint, protocol="chat", tokenizer="")
        into = tmp_path / "out"
        card = score(asked, thinking, arm="candidate", into=into)
        (found,) = card.tasks
        samples = read_samples(into / found.samples)
        cut = [sample.finish for sample in samples].count("thoughts_cut")
        assert found.num_thoughts_cut == found.finishes["thoughts_cut"] == cut
        assert found.num_truncated == cut + found.finishes.get("length", 0)
        return samples

    return ask


@pytest.mark.parametrize("engine", ENGINES)
def test_thoughts_that_outrun_their_budget_are_no_answer(answer: Make, engine: str) -> None:
    samples = answer(engine, SHORT | LATE | ENDLESS)
    assert [(s.answer, s.finish, s.num_tokens, s.num_thought_tokens) for s in samples] == [
        ("b", "stop", 4, 2),
        ("", "thoughts_cut", 7, 5),
        ("", "thoughts_cut", 10, 10),
    ]
    assert [sample.value for sample in samples] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_gets_nothing_of_what_its_thoughts_left(answer: Make, engine: str) -> None:
    samples = answer(engine, SHORT | LONG | LATE | ENDLESS)
    # pqrstuv is seven letters long, where six are allowed; two thoughts left two more.
    assert (samples[0].answer, samples[0].finish) == ("pqrstu", "length")
    assert [sample.finish for sample in samples[1:]] == ["thoughts_cut"] * 2


def test_a_task_may_have_a_budget_for_its_thoughts_of_its_own(
    endpoint: Endpoint, script: Script, thinking: Suite, tmp_path: Path
) -> None:
    (Path(endpoint.tokenizer) / "chat_template.jinja").write_text("{{ messages[0].content }}")
    script.successors = SHORT | LATE | ENDLESS
    (first,) = thinking.tasks
    tasks = (first, replace(first, name="tiny_others", thinking_budget=6))
    card = score(endpoint, replace(thinking, tasks=tasks), arm="candidate", into=tmp_path / "out")
    assert {payload["max_tokens"] for payload in script.payloads} == {6 + 4, 6 + 6}
    assert [one.num_thoughts_cut for one in card.tasks] == [2, 1]
    recorded = [json.loads(card.generation[one.name])["thinking_budget"] for one in tasks]
    assert recorded == [4, 6]


@pytest.mark.parametrize("fault", ["no names of tokens", "no log probabilities"])
def test_chats_whose_thoughts_cannot_be_counted_are_refused_first(
    answer: Make, script: Script, fault: str
) -> None:
    script.always, script.answers_proof = fault, False
    with pytest.raises(EngineError, match="so thoughts cannot be counted apart"):
        answer("chat", SHORT)
    assert not script.seen


def test_a_chat_whose_tokens_are_not_named_is_a_failed_request(
    answer: Make, script: Script
) -> None:
    script.faults = {"xa": ["no names of tokens"]}
    first = answer("chat", SHORT | LATE | ENDLESS)[0]
    assert (first.finish, first.value) == ("error", 0.0)
    assert "thoughts cannot be counted apart" in first.answer
