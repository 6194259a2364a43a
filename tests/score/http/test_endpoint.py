"""A server that somebody else runs: what is looked at, what is refused, and where the key goes."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Suite
from harness.errors import PrerequisiteError, UsageError
from harness.score import endpoint_of, score
from tests.score.http.fake import Script, Server

KEY = 'sk-"hidden/from\\all'
Make = Callable[..., Any]


@pytest.fixture
def asked(suite: Make, spec: Make, tasks: Path) -> Suite:
    del tasks
    made: Suite = suite(spec())
    return made


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/completions"])
def test_a_server_is_described_as_far_as_it_can_be_seen(
    base_url: str, ending: str, asked: Suite, tokenizer_folder: Path
) -> None:
    endpoint = endpoint_of(base_url + ending, asked)
    assert (endpoint.base_url, endpoint.model, endpoint.max_model_len) == (base_url, "tiny", 64)
    assert endpoint.tokenizer == str(tokenizer_folder)
    assert endpoint.protocol == "completions"
    deployment = endpoint.deployment
    assert (deployment.engine, deployment.version) == ("url", "0.32.0")
    assert deployment.kernels["experts"] == "not recorded"
    assert (deployment.declared, deployment.findings) == ((), ())


def test_an_address_that_ends_in_chat_completions_asks_for_chats(
    base_url: str, asked: Suite, script: Script
) -> None:
    script.models = [{"id": "tiny"}]
    chats = replace(asked, apply_chat_template=True)
    endpoint = endpoint_of(f"{base_url}/v1/chat/completions", chats)
    assert (endpoint.protocol, endpoint.tokenizer) == ("chat", "")
    assert endpoint.max_model_len == asked.max_model_len


def test_a_tokenizer_that_is_not_here_is_asked_for(
    base_url: str, asked: Suite, script: Script, tmp_path: Path, tokenizer_folder: Path
) -> None:
    script.models = [{"id": "tiny", "root": "Qwen/Qwen3-8B"}]
    with pytest.raises(UsageError, match="--tokenizer"):
        endpoint_of(base_url, asked)
    with pytest.raises(UsageError, match="holds no tokenizer"):
        endpoint_of(base_url, asked, tokenizer=tmp_path)
    found = endpoint_of(base_url, asked, tokenizer=tokenizer_folder)
    assert found.tokenizer == str(tokenizer_folder)


def test_the_model_is_named_where_there_are_several(
    base_url: str, asked: Suite, script: Script
) -> None:
    script.models.append({"id": "other"})
    with pytest.raises(UsageError, match="--served-model: 'tiny', 'other'"):
        endpoint_of(base_url, asked)
    assert endpoint_of(base_url, asked, model="tiny").model == "tiny"
    with pytest.raises(UsageError, match="no model 'third'"):
        endpoint_of(base_url, asked, model="third")


@pytest.mark.parametrize(
    "strange",
    [
        {"id": "tiny", "max_model_len": 2**70, "root": "/x\x00y"},
        {"id": "tiny", "max_model_len": True, "root": ["/"]},
        {"id": "tiny", "max_model_len": -5, "root": "/" + "x" * 5000},
        {"id": "tiny", "max_model_len": "64", "root": {}},
    ],
)
def test_a_server_that_tells_nonsense_is_asked_for_nothing_of_it(
    base_url: str, asked: Suite, script: Script, strange: dict[str, object]
) -> None:
    script.models = [strange]
    with pytest.raises(UsageError, match="--tokenizer") as caught:
        endpoint_of(base_url, asked)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [None, 5, "", ["a"], "x" * 2000, "a\x1b[31m"])
def test_a_server_whose_models_have_no_names_is_refused(
    base_url: str, asked: Suite, script: Script, name: object
) -> None:
    script.models = [{"id": name}]
    with pytest.raises(PrerequisiteError, match="no server that lists its models") as caught:
        endpoint_of(base_url, asked)
    assert str(caught.value).isprintable()


def test_a_server_with_too_little_room_is_refused(base_url: str, asked: Suite) -> None:
    with pytest.raises(UsageError, match=r"takes 64 tokens, .* needs 65"):
        endpoint_of(base_url, replace(asked, max_model_len=65))


def test_an_address_where_nobody_answers_is_refused(
    base_url: str, asked: Suite, server: Server
) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(PrerequisiteError, match=r"no server .* answers at") as caught:
        endpoint_of(base_url, asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host", "host:8000", "http://", "http://h:x", "http://[::1"],
)
def test_other_addresses_are_refused(url: str, asked: Suite) -> None:
    with pytest.raises(UsageError, match="no address of a server"):
        endpoint_of(url, asked)


@pytest.mark.parametrize("url", ["http://me:secret@h", "https://h/v1?key=secret", "http://h#s"])
def test_an_address_that_holds_a_secret_is_refused_without_showing_it(
    url: str, asked: Suite
) -> None:
    with pytest.raises(UsageError, match="would be recorded") as caught:
        endpoint_of(url, asked)
    assert "secret" not in str(caught.value)


def test_a_key_that_others_could_read_is_not_sent(
    asked: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_API_KEY", KEY)
    with pytest.raises(UsageError, match=r"readable to 'host\.example'") as caught:
        endpoint_of("http://host.example:8000", asked)
    assert KEY not in str(caught.value)


def test_a_key_that_no_header_takes_is_refused(
    base_url: str, asked: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_API_KEY", "two\nlines")
    with pytest.raises(UsageError, match="HARNESS_API_KEY holds") as caught:
        endpoint_of(base_url, asked)
    assert "lines" not in str(caught.value)


def test_a_missing_and_a_wrong_key_are_named_by_their_variable(
    base_url: str, asked: Suite, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_API_KEY", raising=False)
    script.key = KEY
    with pytest.raises(PrerequisiteError, match=r"wants an API key\. Set HARNESS_API_KEY"):
        endpoint_of(base_url, asked)
    monkeypatch.setenv("HARNESS_API_KEY", "sk-wrong")
    with pytest.raises(PrerequisiteError, match="refuses the API key in HARNESS_A") as caught:
        endpoint_of(base_url, asked)
    assert "sk-wrong" not in str(caught.value)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    monkeypatch.setenv("HARNESS_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    script.key = KEY


@pytest.fixture
def output(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(capfd.readouterr())


@pytest.mark.usefixtures("keys")
def test_the_key_reaches_the_server_and_nothing_else(
    base_url: str,
    asked: Suite,
    script: Script,
    tmp_path: Path,
    output: Callable[[], str],
) -> None:
    # The server answers errors with the key that it was sent.
    script.faults |= {"k": ["500"], "?": ["400"]}
    endpoint = endpoint_of(base_url, asked)
    card = score(endpoint, asked, arm="candidate", into=tmp_path / "out")
    assert card.tasks[0].num_errors == 2
    written = [p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert any("***" in text for text in written)
    for text in (*written, output(), repr(endpoint), repr(card)):
        assert "hidden" not in text
        assert "sk-of-another" not in text


def test_answers_of_an_address_are_never_taken_from_an_earlier_run(
    base_url: str, asked: Suite, script: Script, tmp_path: Path
) -> None:
    endpoint = endpoint_of(base_url, asked)
    for _ in range(2):
        score(endpoint, asked, arm="candidate", into=tmp_path / "out")
    assert script.seen.count("k") == 2
