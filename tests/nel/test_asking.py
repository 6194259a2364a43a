"""What the real NeMo Evaluator asks of a server, and what becomes of its answers here."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness.arms import asks_elsewhere
from harness.artifacts import Endpoint
from harness.recipe import load_suite
from harness.score import Answered
from tests.nel.answering import KEY, Answering, answering
from tests.nel.conftest import Suite
from tests.nouns import deployment

Ask = Callable[[], Answered]


@pytest.fixture
def server(suite: Suite) -> Iterator[Answering]:
    lines = suite.file.with_name("items.jsonl").read_text().splitlines()
    with answering([json.loads(line)["prompt"] for line in lines]) as running:
        yield running


@pytest.fixture
def ask(nel: Mapping[str, str], suite: Suite, server: Answering, tmp_path: Path) -> Ask:
    assert nel

    def run() -> Answered:
        suite.write()
        asked = load_suite(str(suite.file), task_code=True)
        endpoint = Endpoint(
            base_url=server.url,
            model="m",
            tokenizer="",
            max_model_len=256,
            num_concurrent=4,
            deployment=deployment(),
            api_key=KEY,
        )
        elsewhere = asks_elsewhere(endpoint, asked, arm="candidate")
        assert elsewhere is not None
        return elsewhere(asked.tasks, tmp_path)["sums"]

    return run


@pytest.mark.parametrize("protocol", ["completions", "chat_completions"])
def test_each_answer_is_scored_as_by_hand(
    ask: Ask, suite: Suite, server: Answering, protocol: str
) -> None:
    suite.service["protocol"] = protocol
    server.wrong, server.cut, server.refused = {3, 11}, {15}, {7}
    samples = ask().samples
    assert [s.doc_id for s in samples if not s.value] == [3, 7, 11]
    assert [s.doc_id for s in samples if s.finish == "length"] == [15]
    assert [s.doc_id for s in samples if s.finish == "error"] == [7]
    assert samples[0].prompt == server.prompts[0]
    assert {s.num_tokens for s in samples if s.finish != "error"} == {3}


def test_the_suite_s_sampling_is_what_the_server_is_asked_for(
    ask: Ask, suite: Suite, server: Answering
) -> None:
    drawn = {"item_sd": 0.1, "repeat_sd": 0.3, "baseline_accuracy": 0.9}
    suite.task(repeats=2, temperature=0.7, top_p=0.9, items=6, **drawn)
    samples = ask().samples
    assert {(asked["temperature"], asked["top_p"]) for asked in server.asked} == {(0.7, 0.9)}
    assert {asked["max_tokens"] for asked in server.asked} == {7}
    assert [s.repeat for s in samples] == [0, 1] * 6
    assert len(server.asked) == 12


def test_a_further_scorer_is_a_metric_of_the_same_answers(
    ask: Ask, suite: Suite, server: Answering
) -> None:
    suite.benchmark["scoring"] = {"metrics": [{"type": "scorer", "name": "exact_match"}]}
    suite.task(metric="scorer:exact_match")
    server.wrong = {4}
    assert [s.doc_id for s in ask().samples if not s.value] == [4]
    assert len(server.asked) == 20


def test_nothing_that_is_kept_holds_the_key(ask: Ask, tmp_path: Path) -> None:
    ask()
    kept = [path for path in (tmp_path / "nel").rglob("*") if path.is_file()]
    assert any(path.name == "results.jsonl" for path in kept)
    assert not any(KEY.encode() in path.read_bytes() for path in kept)
