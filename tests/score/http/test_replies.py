"""Whatever a server sends as an answer, it is read, or is a failed request in one line."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.artifacts import Endpoint
from harness.errors import EngineError
from harness.score.asking import AnswerRequest, Limits, Thoughts
from harness.score.client import HttpReply
from harness.score.probe_http import _read as read_passage
from harness.score.probe_http import _reading, _reading_natively
from harness.score.proof import prove, prove_chats
from harness.score.recording import Finish
from harness.score.replies import read_answer, read_chat, read_chosen
from tests.nouns import deployment as deployment_of
from tests.score.conftest import make_tokenizer

ASKED = AnswerRequest(0, ("task", 0, 0), [1, 2], Limits(stops=("x",), answer_budget=4), cut=False)
LIMITS = Limits(stops=("x",), answer_budget=2, thoughts=Thoughts("/", 2))
THINKS = ASKED._replace(limits=LIMITS)
TOKENIZER = make_tokenizer()
KEYS = (
    *("choices", "text", "finish_reason", "message", "content", "reasoning", "logprobs", "1", "2"),
    *(
        "token",
        "token_logprobs",
        "top_logprobs",
        "usage",
        "prompt_tokens",
        "prompt_logprobs",
        "logprob",
    ),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "\ud800", "stop", "length", "a/b", 2, -0.5])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=20,
)
BODIES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4) | VALUES.map(
    lambda value: {"choices": [value]}
)


@settings(max_examples=300, deadline=None)
@given(BODIES)
def test_any_body_is_read_or_is_a_failed_request(body: dict[str, Any]) -> None:
    reply = HttpReply(body, None, 200)
    for answer in (
        *(read_answer(reply, ASKED), read_chat(reply, ASKED), read_chat(reply, THINKS)),
        read_answer(reply, THINKS, tokenizer=TOKENIZER),
    ):
        json.dumps(answer.text).encode()
        answer.text.encode()
        assert (answer.error is None) == (answer.finish is not Finish.ERROR)
        assert answer.error is None or answer.error.isprintable()
    chosen = read_chosen(reply, [1, 2], 1)
    assert isinstance(chosen.log_likelihood, float | int)
    assert chosen.error is None or chosen.error.isprintable()
    for look in (_reading, _reading_natively):
        reading = read_passage("passage", [1, 2], reply, look)
        assert reading.error is None or reading.error.isprintable()


class Answering:
    """A connection to a server that answers everything with one body."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._reply = HttpReply(body, None, 200)

    def send(self, _: str, payloads: Sequence[object]) -> Any:  # noqa: ANN401 -- as much as is used
        return SimpleNamespace(result=lambda: [self._reply for _ in payloads])


ENDPOINT = Endpoint(
    base_url="http://h",
    model="tiny",
    tokenizer="",
    max_model_len=64,
    num_concurrent=1,
    deployment=deployment_of(),
)
TOKENIZER = make_tokenizer()


@settings(max_examples=300, deadline=None)
@given(BODIES)
def test_any_body_proves_nothing_and_ends_the_run_in_one_line(body: dict[str, Any]) -> None:
    server: Any = Answering({"model": "tiny"} | body)
    with pytest.raises(EngineError, match="does not prove") as caught:
        prove(ENDPOINT, server, TOKENIZER, reads=True)
    assert str(caught.value).isprintable()


@settings(max_examples=300, deadline=None)
@given(BODIES)
def test_any_body_is_a_chat_or_ends_the_run_in_one_line(body: dict[str, Any]) -> None:
    server: Any = Answering({"model": "tiny"} | body)
    try:
        prove_chats(ENDPOINT, server)
    except EngineError as error:
        text = str(error)
    else:
        text = ""
    assert not text or text.isprintable()


@pytest.mark.parametrize("text", [5, ["a"], "\ud800", {"a": 1}])
def test_what_is_no_text_is_no_answer(text: object) -> None:
    body = {"choices": [{"text": text, "finish_reason": "stop"}]}
    answer = read_answer(HttpReply(body, None, 200), ASKED)
    assert (answer.text, answer.finish) == ("", Finish.ERROR)
