"""Before a suite is sent a server proves what its scores will rest on; a fault ends in a line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Endpoint, Scorecard, Suite, read_samples
from harness.errors import EngineError, ScoringError
from harness.score import score
from tests.score.http.fake import Script
from tests.score.http.test_http import MULTIPLE_CHOICE

pytestmark = pytest.mark.usefixtures("tasks", "server")
Make = Callable[..., Any]
Ask = Callable[..., Scorecard]

ANSWERS = {
    "wrong model": "model 'tiny' was asked, and 'another' answered",
    "no model": "model 'tiny' was asked, and 'None' answered",
    "no log probabilities": "its answer has no log probabilities",
    "no finish_reason": "the answer ended by 'None', neither 'stop' nor 'length'",
    "two answers": "one answer was asked for, and the reply has 2",
    "no usage": "nothing in its answer shows how many tokens of the prompt it read",
    "ignores max_tokens": "the answer has 66 tokens where at most 16 were asked for",
    "answers of another prompt": "the server read 23 tokens where 44 were sent",
    "bos": "the server read 45 tokens where 44 were sent",
    "above 0": "a log probability is 0.7, above 0",
    "garbage": "the answer is no JSON object",
    "HTML": "the answer is no JSON object",
    "huge": "the answer is longer than",
    "400": "HTTP 400: no,",
    "401": "HTTP 401: no,",
    "500": "HTTP 500: no,",
    "drop": "disconnected",
    "reset": "reset",
    "answers of one another": "where 44 were sent",
}
"""What a server does, and what is said of it."""
READINGS = {
    "no log probabilities of the prompt": "1 log probabilities for 44 tokens that were sent and 1",
    "truncated log probabilities": "44 log probabilities for 44 tokens that were sent and 1",
    "echo ignored": "1 log probabilities for 44 tokens that were sent and 1 generated",
    "wrong tokens": "the prompt did not come back: its answer begins 'tHE QUICK",
}
"""The same where log-likelihoods are asked for."""
CHATS = (
    *("wrong model", "no finish_reason", "two answers", "above 0", "HTML", "garbage"),
    *("answers of another prompt", "ignores max_tokens", "500", "drop", "reset"),
)


@pytest.fixture
def ask(endpoint: Endpoint, spec: Make, suite: Make, tmp_path: Path) -> Ask:
    def make(name: str = "tiny_next", *, chats: bool = False, **changes: object) -> Scorecard:
        of_task = MULTIPLE_CHOICE if name == "tiny_choice" else {}
        asked: Suite = suite(spec(name, **of_task), apply_chat_template=chats)
        protocol = "chat" if chats else "completions"
        asked_of = replace(endpoint, protocol=protocol, **changes)  # type: ignore[arg-type]  # the fields vary by test
        return score(asked_of, asked, arm="candidate", into=tmp_path / "out")

    return make


@pytest.fixture
def faulty(script: Script) -> Callable[[str], None]:
    def make(fault: str) -> None:
        script.always, script.answers_proof = fault, False

    return make


def refused(ask: Ask, *arguments: str, **changes: object) -> str:
    with pytest.raises(EngineError) as caught:
        ask(*arguments, **changes)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("fault", sorted(ANSWERS))
def test_a_server_that_answers_wrongly_is_asked_for_no_score(
    ask: Ask, faulty: Callable[[str], None], script: Script, fault: str
) -> None:
    faulty(fault)
    words = refused(ask)
    assert "does not prove that its answers can be scored" in words
    assert ANSWERS[fault] in words
    assert script.seen == []


@pytest.mark.parametrize("fault", sorted(READINGS))
def test_a_server_that_reads_no_prompt_is_asked_for_no_log_likelihood(
    ask: Ask, faulty: Callable[[str], None], script: Script, fault: str
) -> None:
    faulty(fault)
    assert READINGS[fault] in refused(ask, "tiny_choice")
    assert script.seen == []


@pytest.mark.parametrize("fault", CHATS)
def test_a_server_of_chats_proves_what_chats_can(
    ask: Ask, faulty: Callable[[str], None], script: Script, fault: str
) -> None:
    faulty(fault)
    assert "does not prove that its answers can be scored" in refused(ask, chats=True)
    assert script.seen == []


def test_a_server_that_stalls_ends_the_run(
    ask: Ask, faulty: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.score.client._SECONDS_A_TOKEN", 0.0)
    faulty("hang")
    assert "TimeoutError" in refused(ask)


@pytest.mark.parametrize("fault", ["null", "NaN", "NaN, which is no JSON"])
def test_nan_is_the_models_fault_and_ends_in_no_score_all_the_same(
    ask: Ask, faulty: Callable[[str], None], script: Script, fault: str
) -> None:
    script.successors = {**script.successors, "?": "k"}
    faulty(fault)
    with pytest.raises(ScoringError, match="every request") as caught:
        ask()
    assert "does not prove" not in str(caught.value)


def test_generated_answers_need_no_log_probabilities_of_a_prompt(
    ask: Ask, faulty: Callable[[str], None]
) -> None:
    faulty("no log probabilities of the prompt")
    assert ask(dialect="trtllm").tasks[0].value == 0.75


@pytest.mark.parametrize("fault", ["wrong model", "no model"])
@pytest.mark.parametrize("name", ["tiny_next", "tiny_choice"])
def test_another_model_behind_the_address_ends_the_run(
    ask: Ask, script: Script, fault: str, name: str
) -> None:
    script.always = fault
    words = refused(ask, name)
    assert "changed while it was asked: an answer came from model" in words


@pytest.mark.parametrize("name", ["tiny_next", "tiny_choice"])
def test_an_answer_to_another_prompt_ends_the_run_where_tokens_are_named(
    ask: Ask, script: Script, name: str
) -> None:
    script.always = "answers of another prompt"
    assert "to another prompt" in refused(ask, name, dialect="vllm")


def test_a_text_that_is_another_prompts_is_no_log_likelihood(ask: Ask, script: Script) -> None:
    script.faults["xab"] = ["wrong tokens"]
    assert ask("tiny_choice").tasks[0].num_errors == 1


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("tiny_choice", "truncated log probabilities", "log probabilities for"),
        ("tiny_choice", "echo ignored", "does not begin with its prompt"),
        ("tiny_choice", "no usage", "its usage says 'None' for prompt_tokens"),
        ("tiny_next", "no log probabilities", "earlier ones had them"),
        ("tiny_next", "ignores max_tokens", "tokens where at most 6 were asked for"),
        ("tiny_next", "above 0", "above 0"),
        ("tiny_next", "HTML", "no JSON object"),
    ],
)
def test_an_answer_of_another_shape_later_is_an_error_and_never_a_score(  # noqa: PLR0913, PLR0917  makers
    ask: Ask, script: Script, name: str, fault: str, words: str, tmp_path: Path
) -> None:
    script.faults |= {prompt: [fault] for prompt in ("xab", "k")}
    card = ask(name)
    assert card.tasks[0].num_errors == 1
    samples = read_samples(tmp_path / "out" / card.tasks[0].samples)
    assert [words in sample.answer for sample in samples].count(True) == 1


def test_a_model_answers_by_any_of_its_names(ask: Ask, script: Script) -> None:
    script.name = "first name"
    assert "'first name' answered" in refused(ask)
    assert ask(also_called=("first name",)).tasks[0].num_errors == 0
