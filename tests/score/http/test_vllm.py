"""The canary on a real vLLM server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import shipped
from harness.artifacts import Endpoint, EngineSpec, Scorecard, Suite, read_samples
from harness.errors import PrerequisiteError
from harness.recipe import load_suite
from harness.score import endpoint_of, score
from harness.score.client import connect
from harness.serve import Served, resolve_engine, serve

MODEL = shipped.canary() / "model"
ITEMS = 40
FLIPS = 4
"""Of all items at most: bfloat16 on one side, float32 on the other."""
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "chat": {"apply_chat_template": True},
    "thinking": {
        "apply_chat_template": True,
        "thinking": True,
        "think_end_token": "1",
        "thinking_budget": 8,
    },
}
"""The canary has no thoughts of its own: a character that it writes ends what is taken for one."""


@pytest.fixture(autouse=True)
def impatient() -> None:
    """A real server may take its time, so no retries is cut short here."""


@pytest.fixture(scope="module")
def shortened() -> Suite:
    suite = load_suite("canary")
    tasks = tuple(replace(task, items=ITEMS) for task in suite.tasks)
    return replace(suite, tasks=tasks)


@pytest.fixture(scope="module")
def vllm(vllm_python: Path, shortened: Suite) -> Iterator[Endpoint]:
    engine = EngineSpec(
        name="vllm",
        numerics="declared",
        device="cpu",
        dtype="auto",
        max_model_len=shortened.max_model_len,
        place=str(vllm_python),
    )
    with serve(resolve_engine(engine), MODEL) as served:
        assert isinstance(served, Endpoint)
        yield served


@pytest.mark.parametrize("mode", ["plain", "chat", "thinking"])
def test_both_engines_answer_the_same_items_alike(
    vllm: Endpoint, shortened: Suite, tmp_path: Path, mode: str
) -> None:
    suite = replace(shortened, digest=mode, **MODES[mode])
    reference = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
    with serve(reference, MODEL) as served:
        assert isinstance(served, Served)
        ours = score(served, suite, arm="a", into=tmp_path / "ours")
    theirs = score(vllm, suite, arm="a", into=tmp_path / "theirs")
    left, right = _samples(ours, tmp_path / "ours"), _samples(theirs, tmp_path / "theirs")
    asked = ("doc_id", "doc_hash", "prompt_hash", "target_hash", "prompt", "target")
    for one, two in zip(left, right, strict=True):
        assert [one[name] for name in asked] == [two[name] for name in asked]
    assert [two for two in right if two["finish"] == "error"] == []
    assert sum(a["value"] != b["value"] for a, b in zip(left, right, strict=True)) <= FLIPS
    # Every item takes the same way through both engines but for those that flip.
    assert sum(a["finish"] != b["finish"] for a, b in zip(left, right, strict=True)) <= FLIPS
    assert ours.generation == theirs.generation


@pytest.mark.parametrize("mode", ["chat", "thinking"])
def test_a_chat_is_answered_alike_whoever_renders_it(
    vllm: Endpoint, shortened: Suite, tmp_path: Path, mode: str
) -> None:
    generated = tuple(task for task in shortened.tasks if task.metric == "exact_match")
    suite = replace(shortened, tasks=generated, **MODES[mode])
    here = score(vllm, suite, arm="a", into=tmp_path / "here")
    chats = replace(vllm, protocol="chat", tokenizer="")
    there = score(chats, suite, arm="a", into=tmp_path / "there")
    left, right = _samples(here, tmp_path / "here"), _samples(there, tmp_path / "there")
    assert len({a["answer"] for a in left}) > len(generated)
    assert [two for two in right if two["finish"] == "error"] == []
    assert sum(a["answer"] != b["answer"] for a, b in zip(left, right, strict=True)) <= FLIPS
    for name in ("finish", "num_tokens", "num_thought_tokens"):
        differing = [a[name] != b[name] for a, b in zip(left, right, strict=True)]
        assert sum(differing) <= FLIPS, name
    if mode == "thinking":
        assert {one["finish"] for one in right} == {"stop", "thoughts_cut"}


def test_an_answer_at_its_budget_and_one_at_its_stop_are_told_apart(vllm: Endpoint) -> None:
    asked = {"model": vllm.model, "prompt": [list(b"Q: 54+39? A:")], "temperature": 0}
    payloads = [asked | {"max_tokens": 1}, asked | {"max_tokens": 9, "stop": ["\n"]}]
    with connect(vllm) as server:
        replies = server.send("/v1/completions", payloads).result()
    bodies = [reply.body for reply in replies if reply.body]
    assert [body["choices"][0]["finish_reason"] for body in bodies] == ["length", "stop"]


def test_a_prompt_that_does_not_fit_is_refused_and_not_tried_again(vllm: Endpoint) -> None:
    asked = {"model": vllm.model, "prompt": [[65] * 300], "max_tokens": 1}
    with connect(vllm) as server:
        (reply,) = server.send("/v1/completions", [asked]).result()
    assert reply.status == 400
    assert reply.error
    assert "256" in reply.error


def test_a_running_server_is_found_by_its_address(
    vllm: Endpoint, shortened: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PrerequisiteError, match="wants an API key"):
        endpoint_of(vllm.base_url, shortened)
    monkeypatch.setenv("HARNESS_API_KEY", str(vllm.api_key))
    found = endpoint_of(vllm.base_url, shortened)
    assert (found.model, found.max_model_len) == (vllm.model, vllm.max_model_len)
    assert found.tokenizer == vllm.tokenizer
    assert vllm.deployment.version.startswith(found.deployment.version)


def _samples(card: Scorecard, folder: Path) -> list[dict[str, Any]]:
    samples = [s for task in card.tasks for s in read_samples(folder / task.samples)]
    return [{name: getattr(s, name) for name in s.__slots__} for s in samples]
