"""Asking a server, whose log probabilities come by token id and may fail."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.artifacts import Ask, Endpoint, Mode, Passage, SmokeSet
from harness.score import client, probe
from tests.score.http.fake import Script

pytestmark = pytest.mark.usefixtures("server")
SET = SmokeSet(
    name="tiny",
    apply_chat_template=False,
    max_model_len=64,
    seed=3,
    top_k=2,
    passages=(Passage(id="known", text="abk"), Passage(id="other", text="kkkk")),
    asks=(
        Ask(id="next", prompt="xx a", expect=("b",), max_tokens=8, stops=("\n",)),
        Ask(id="loop", prompt="k", max_tokens=6),
    ),
    digest="5" * 64,
)


@pytest.fixture(autouse=True)
def impatient_probe(monkeypatch: pytest.MonkeyPatch, impatient: client.RetryPolicy) -> None:
    def connect(endpoint: Endpoint) -> client.Connection:
        return client.connect(endpoint, retries=impatient)

    monkeypatch.setattr("harness.score.probing.connect", connect)


def test_a_server_is_read_by_token_id(endpoint: Endpoint, script: Script) -> None:
    made = probe(endpoint, SET, arm="candidate")
    known = made.readings[0]
    a, b, k = (script.tokenizer.encode(letter)[0] for letter in "abk")
    assert known.tokens == (a, b, k)
    assert known.logprobs == (-0.1, -5.0)
    assert known.top[0] == {b: -0.1}
    assert known.top[1] == {k: -5.0, script.tokenizer.encode("\n")[0]: -0.1}
    asked = [p for p in script.payloads if "prompt_logprobs" in p]
    assert [(p["prompt_logprobs"], p["max_tokens"]) for p in asked] == [(2, 1)] * 2


def test_a_server_gets_the_same_tokens_and_limits_in_all_three_ways(
    endpoint: Endpoint, script: Script, served: Callable[..., Any]
) -> None:
    on_gpu = replace(endpoint.deployment, device="NVIDIA H200 (sm_90)")
    over_http = probe(replace(endpoint, deployment=on_gpu), SET, arm="candidate")
    in_process = probe(served(script.successors), SET, arm="candidate")
    greedy = {Mode.GREEDY, Mode.BATCHED}
    assert [r for r in over_http.replies if r.mode in greedy] == [
        r for r in in_process.replies if r.mode in greedy
    ]
    assert [r.tokens for r in over_http.readings] == [r.tokens for r in in_process.readings]
    answers = [p for p in script.payloads if "prompt_logprobs" not in p]
    drawn = [p for p in answers if p["temperature"] == 1.0]
    assert len(answers) == 6
    assert [(p["seed"], p["top_k"], p["top_p"]) for p in drawn] == [(3, -1, 1.0)] * 2


def test_known_answers_and_a_long_one_are_asked_alone_and_all_else_at_once(
    endpoint: Endpoint, script: Script
) -> None:
    asks = (*SET.asks, Ask(id="more", prompt="yyyy a", expect=("b",), max_tokens=8))
    script.delay_s = 0.1
    probe(replace(endpoint, num_concurrent=64), replace(SET, asks=asks), arm="candidate")
    alone, rest = script.payloads[:3], script.payloads[3:]
    (longest,) = [ask.prompt for ask in asks if not ask.expect]
    first = [script.tokenizer.decode(p["prompt"][0]) for p in alone]
    assert first == ["xx a", longest, "yyyy a"]
    assert script.at_once[:3] == [1, 1, 1]
    assert script.most_running == len(rest) == len(SET.passages) + 2 * len(asks)


def test_a_server_on_a_cpu_gets_no_seed_which_would_end_it(
    endpoint: Endpoint, script: Script
) -> None:
    assert endpoint.deployment.device == "cpu"
    probe(endpoint, SET, arm="candidate")
    drawn = [p for p in script.payloads if p["temperature"] == 1.0]
    assert len(drawn) == 2
    assert all("seed" not in payload for payload in drawn)


def test_somebody_elses_server_gets_no_seed_for_it_may_run_on_a_cpu(
    endpoint: Endpoint, script: Script
) -> None:
    unknown = replace(endpoint.deployment, device="not recorded", address=endpoint.base_url)
    probe(replace(endpoint, deployment=unknown), SET, arm="candidate")
    assert all("seed" not in p for p in script.payloads if p["temperature"] == 1.0)


def test_minus_infinity_as_servers_write_it_is_not_finite(
    endpoint: Endpoint, script: Script
) -> None:
    script.faults["abk"] = ["clamped"]
    known, other = probe(endpoint, SET, arm="candidate").readings
    assert known.logprobs == (-0.1, None)
    assert other.error is None


def test_a_request_that_fails_is_a_reading_with_its_reason(
    endpoint: Endpoint, script: Script
) -> None:
    script.faults["abk"] = ["500"]
    known, other = probe(endpoint, SET, arm="candidate").readings
    assert "HTTP 500" in str(known.error)
    assert known.logprobs == ()
    assert other.error is None


def test_a_server_that_does_not_know_prompt_log_probabilities_gives_no_reading(
    endpoint: Endpoint, script: Script
) -> None:
    script.faults["abk"] = ["plain"]
    known, _ = probe(endpoint, SET, arm="candidate").readings
    assert "prompt_logprobs" in str(known.error)


def test_a_server_of_chats_alone_answers_and_is_not_read(
    endpoint: Endpoint, script: Script
) -> None:
    made = probe(replace(endpoint, protocol="chat"), SET, arm="candidate")
    assert made.readings == ()
    assert {r.text for r in made.replies if r.ask == "next" and r.mode is Mode.GREEDY} == {"b"}
    assert script.payloads[0]["chat_template_kwargs"] == {"enable_thinking": False}
