"""lm-eval against a server whose answers are known, and whose failures are chosen."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Endpoint, Sample, Suite, TaskScore, read_samples
from harness.errors import EngineError, ScoringError, SuiteError
from harness.score import score
from harness.score.translate import to_samples
from tests.score.http.fake import ALPHABET, Script, Server

MULTIPLE_CHOICE = {"metric": "acc", "items": 2, "chance": 0.5}
ITEMS = ("xx a", "a longer prompt: a", "k", "?")

pytestmark = pytest.mark.usefixtures("tasks", "server")
Make = Callable[..., Any]
Ask = Callable[..., tuple[TaskScore, tuple[Sample, ...]]]


@pytest.fixture
def both(spec: Make, suite: Make) -> Suite:
    made: Suite = suite(spec(), spec("tiny_choice", **MULTIPLE_CHOICE))
    return made


@pytest.fixture
def ask(endpoint: Endpoint, spec: Make, suite: Make, tmp_path: Path) -> Ask:
    def make(name: str = "tiny_next", **changes: object) -> tuple[TaskScore, tuple[Sample, ...]]:
        of_task = MULTIPLE_CHOICE if name == "tiny_choice" else {}
        asked = suite(spec(name, **of_task))
        card = score(replace(endpoint, **changes), asked, arm="candidate", into=tmp_path / "out")  # type: ignore[arg-type]  # the fields vary by test
        return card.tasks[0], read_samples(tmp_path / "out" / card.tasks[0].samples)

    return make


@pytest.fixture
def ask_in_process(served: Make, spec: Make, suite: Make, tmp_path: Path) -> Ask:
    def make(name: str) -> tuple[TaskScore, tuple[Sample, ...]]:
        asked = suite(spec(name, **(MULTIPLE_CHOICE if name == "tiny_choice" else {})))
        card = score(served(ALPHABET), asked, arm="candidate", into=tmp_path / "in")
        return card.tasks[0], read_samples(tmp_path / "in" / card.tasks[0].samples)

    return make


@pytest.mark.parametrize("name", ["tiny_next", "tiny_choice"])
def test_a_server_and_the_model_in_process_are_asked_and_read_alike(
    ask: Ask, ask_in_process: Ask, name: str
) -> None:
    over_http = ask(name)
    assert over_http == ask_in_process(name)
    assert all(sample.prompt_hash for sample in over_http[1])


def test_chat_multiple_choice_is_rendered_and_read_alike(  # noqa: PLR0913, PLR0917  makers
    endpoint: Endpoint, script: Script, served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ 'a' }}"
    (Path(endpoint.tokenizer) / "chat_template.jinja").write_text(template)
    model = served(ALPHABET)
    model.tokenizer.chat_template = template
    asked = suite(spec("tiny_choice", **MULTIPLE_CHOICE), apply_chat_template=True)
    over_http = score(endpoint, asked, arm="a", into=tmp_path / "http")
    in_process = score(model, asked, arm="a", into=tmp_path / "in")
    assert over_http.tasks == in_process.tasks
    assert over_http.generation == in_process.generation
    assert sorted(script.seen) == ["[a]ab", "[a]ac", "[xa]ab", "[xa]ac"]


def test_requests_are_greedy_seeded_and_in_tokens(ask: Ask, script: Script) -> None:
    ask()
    for payload in script.payloads:
        assert (payload["temperature"], payload["seed"]) == (0.0, 1)
        assert payload["repetition_penalty"] == 1.0
        assert (payload["max_tokens"], payload["stop"]) == (6, ["\n", "<|end|>"])
        assert all(isinstance(token, int) for token in payload["prompt"][0])


@pytest.mark.parametrize("fault", ["500", "503", "429", "drop"])
def test_a_passing_failure_is_tried_again(ask: Ask, script: Script, fault: str) -> None:
    script.faults["k"] = [fault, fault, ""]
    task, samples = ask()
    assert (task.num_errors, task.value) == (0, 0.75)
    assert samples[2].answer == "kkkkkk"
    assert script.seen.count("k") == 3


@pytest.mark.parametrize(
    ("fault", "tries", "words"),
    [
        ("500", 3, "HTTP 500: no,"),
        ("429", 3, "HTTP 429"),
        ("drop", 3, "disconnected"),
        ("400", 1, "HTTP 400"),
        ("302", 1, "HTTP 302"),
        ("garbage", 1, "no JSON object"),
        ("null", 1, "a log probability is None"),
        ("bos", 1, "the server read 2 tokens where 1 were sent"),
    ],
)
def test_what_fails_for_good_is_an_error_and_no_wrong_answer(
    ask: Ask, script: Script, fault: str, tries: int, words: str
) -> None:
    script.faults["k"] = [fault]
    task, samples = ask()
    assert (task.num_items, task.num_errors, task.num_truncated, task.num_empty) == (4, 1, 0, 1)
    assert task.value == pytest.approx(2 / 3)
    assert [s.finish for s in samples] == ["stop", "stop", "error", "stop"]
    assert words in samples[2].answer
    assert "\n" not in samples[2].answer
    assert script.seen.count("k") == tries


def test_a_log_likelihood_that_is_no_number_is_a_failed_request(ask: Ask, script: Script) -> None:
    script.faults["xac"] = ["null"]
    task, samples = ask("tiny_choice")
    assert (task.num_errors, task.value) == (1, 0.0)
    assert [s.finish for s in samples] == ["error", "scored"]


def test_an_answer_that_is_late_is_wrong_and_not_asked_for_again(
    ask: Ask, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.score.client._SECONDS_A_TOKEN", 0.0)
    script.faults["k"] = ["hang", ""]
    task, samples = ask()
    assert (task.num_errors, task.num_timeouts, task.value) == (0, 1, 0.5)
    assert [s.finish for s in samples] == ["stop", "stop", "timeout", "stop"]
    assert script.seen.count("k") == 1


DRAWN = {"repeats": 3, "temperature": 0.6, "top_p": 0.95, "item_sd": 0.1, "repeat_sd": 0.5}


@pytest.mark.parametrize("chats", [False, True])
def test_each_repeat_has_a_seed_of_its_own(  # noqa: PLR0913  fixtures
    endpoint: Endpoint, script: Script, spec: Make, suite: Make, tmp_path: Path, *, chats: bool
) -> None:
    gpu = replace(endpoint.deployment, device="NVIDIA H200 (sm_90)")
    server = replace(endpoint, deployment=gpu, protocol="chat" if chats else "completions")
    asked = suite(spec(**DRAWN), apply_chat_template=chats)
    card = score(server, asked, arm="candidate", into=tmp_path / "out")
    drawn = [p for p in script.payloads if p["temperature"]]
    assert len(drawn) == len({p["seed"] for p in drawn}) == 12
    assert {(p["temperature"], p["top_p"], p["top_k"], p["min_p"]) for p in drawn} == {
        (0.6, 0.95, -1, 0.0)
    }
    assert card.tasks[0].num_answers == 12
    first = sorted(p["seed"] for p in drawn)
    script.payloads.clear()
    score(server, asked, arm="baseline", into=tmp_path / "again")
    assert sorted(p["seed"] for p in script.payloads if p["temperature"]) == first


def test_a_server_on_a_cpu_gets_no_seeds_and_the_scorecard_says_so(
    endpoint: Endpoint, script: Script, spec: Make, suite: Make, tmp_path: Path
) -> None:
    card = score(endpoint, suite(spec(**DRAWN)), arm="candidate", into=tmp_path / "out")
    drawn = [p for p in script.payloads if p["temperature"]]
    assert drawn
    assert not any("seed" in p for p in drawn)
    assert "the server's own" in card.generation["tiny_next"]


def test_a_dead_server_ends_the_run_in_one_line(ask: Ask, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(EngineError, match="no longer answers") as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_a_server_whose_engine_died_ends_the_run(ask: Ask, script: Script) -> None:
    script.health = 503
    script.faults["k"] = ["500"]
    with pytest.raises(EngineError, match=r"no longer answers .HTTP 500"):
        ask()


def test_a_task_of_which_every_request_failed_has_no_score(ask: Ask, script: Script) -> None:
    script.faults |= {prompt: ["400"] for prompt in ITEMS}
    with pytest.raises(ScoringError, match=r"every request .* failed .4 of 4.; the first: HTTP"):
        ask()


@pytest.mark.parametrize("num_concurrent", [1, 3])
def test_no_more_requests_are_sent_at_once_than_asked_for(
    ask: Ask, script: Script, num_concurrent: int
) -> None:
    script.delay_s = 0.05
    ask(num_concurrent=num_concurrent)
    assert script.most_running == num_concurrent


def test_a_prompt_that_does_not_fit_is_cut_and_counted(ask: Ask, script: Script) -> None:
    task, _ = ask(max_model_len=12)
    assert task.num_prompts_cut == 1
    assert "mpt: a" in script.seen
    task, _ = ask("tiny_choice", max_model_len=3)
    assert task.num_prompts_cut == 1


def test_the_next_task_is_sent_before_this_one_is_scored(
    endpoint: Endpoint, script: Script, both: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def wait_and_count(*arguments: Any) -> tuple[Sample, ...]:  # noqa: ANN401 -- passed on
        time.sleep(0.3)
        seen.append(len(script.seen))
        return to_samples(*arguments)

    monkeypatch.setattr("harness.score.run.to_samples", wait_and_count)
    card = score(endpoint, both, arm="a", into=tmp_path / "out")
    assert seen == [8, 8]
    assert [task.value for task in card.tasks] == [0.75, 0.5]


def test_a_next_task_that_cannot_be_asked_does_not_spoil_this_one(
    endpoint: Endpoint, both: Suite, tmp_path: Path, tasks: Path
) -> None:
    (tasks / "tiny_choice.jsonl").unlink()
    with pytest.raises(SuiteError, match=r"tiny_choice\.jsonl"):
        score(endpoint, both, arm="a", into=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "tasks").iterdir()] == ["tiny_next.json"]


class Alarm(BaseException):
    """Raised by a signal handler, as the command line does for SIGTERM."""


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_signal_ends_the_requests_under_way(ask: Ask, script: Script) -> None:
    script.delay_s = 0.3
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(Alarm):
        ask(num_concurrent=1)
    assert len(script.seen) < len(ITEMS)


def test_chats_are_rendered_here_and_thoughts_are_no_answer(
    endpoint: Endpoint, script: Script, spec: Make, suite: Make, tmp_path: Path
) -> None:
    folder = Path(endpoint.tokenizer)
    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    thinking = suite(
        spec(),
        apply_chat_template=True,
        thinking=True,
        think_end_token="/",  # noqa: S106 -- no secret
        thinking_budget=5,
    )
    script.successors = {"<": "\n", "\n": "k", "k": "/", "/": "b", "b": "<|end|>"}
    card = score(endpoint, thinking, arm="candidate", into=tmp_path / "out")
    samples = read_samples(tmp_path / "out" / card.tasks[0].samples)
    assert [(s.answer, s.finish) for s in samples] == [("b", "stop")] * 4
    assert samples[0].prompt == "xx a<"
    assert script.payloads[0]["stop"] == []
    assert script.payloads[0]["max_tokens"] == 11
    assert json.loads(card.generation["tiny_next"])["thinking_budget"] == 5

    script.successors = {"<": "\n", "\n": "k", "k": "k"}
    other = replace(thinking, digest="e" * 64)
    card = score(endpoint, other, arm="candidate", into=tmp_path / "out")
    assert (card.tasks[0].num_truncated, card.tasks[0].num_empty) == (4, 4)


def test_a_server_that_only_has_chats_answers_what_is_generated(
    endpoint: Endpoint, script: Script, spec: Make, suite: Make, tmp_path: Path
) -> None:
    chats = replace(endpoint, protocol="chat", tokenizer="")
    with pytest.raises(SuiteError, match="prompts that are no chats"):
        score(chats, suite(spec()), arm="a", into=tmp_path / "out")
    asked = suite(spec("tiny_choice", **MULTIPLE_CHOICE), apply_chat_template=True)
    with pytest.raises(SuiteError, match="needs log-likelihoods"):
        score(chats, asked, arm="a", into=tmp_path / "out")
    card = score(chats, suite(spec(), apply_chat_template=True), arm="a", into=tmp_path / "out")
    assert card.tasks[0].value == 0.75
    messages = [payload["messages"] for payload in script.payloads]
    assert [{"role": "user", "content": "xx a"}] in messages
    assert json.loads(card.generation["tiny_next"])["chats_rendered_by"] == "server"
