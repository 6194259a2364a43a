"""Asking a real model in this process, whose answers and log probabilities are known."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from harness.artifacts import Ask, Mode, Passage, Probe, SmokeSet
from harness.score import probe

Make = Callable[..., Any]
SUCCESSORS = {"a": "b", "b": "\n", "k": "k"}
NUM_TOKENS = 272
SET = SmokeSet(
    name="tiny",
    apply_chat_template=False,
    max_model_len=64,
    seed=3,
    top_k=4,
    passages=(Passage(id="known", text="kkkk"), Passage(id="mixed", text="ab\na")),
    asks=(
        Ask(id="next", prompt="xx a", expect=("b",), max_tokens=8, stops=("\n",)),
        Ask(id="more", prompt="yyyy a", expect=("b",), max_tokens=8, stops=("\n",)),
        Ask(id="loop", prompt="k", max_tokens=6),
    ),
    digest="5" * 64,
)


def text_of(made: Probe, ask: str, mode: Mode) -> str:
    (found,) = [r.text for r in made.replies if (r.ask, r.mode) == (ask, mode)]
    return found


def test_log_probabilities_are_those_of_the_table_of_successors(served: Make) -> None:
    """The logits are 1 for the successor times the norm's length, and 0 for all others."""
    engine = served(SUCCESSORS)
    made = probe(engine, SET, arm="baseline")
    tokens = engine.tokenizer.encode("kkkk")
    with torch.inference_mode():
        logits = engine.model(torch.tensor([tokens])).logits[0].double()
    expected = [
        float(row[token] - row.exp().sum().log())
        for row, token in zip(logits, tokens[1:], strict=False)
    ]
    reading = made.readings[0]
    assert reading.tokens == tuple(tokens)
    assert reading.logprobs == tuple(round(v, 5) for v in expected)
    assert [max(place, key=lambda t: place[t]) for place in reading.top] == tokens[1:]
    assert all(len(place) in {4, 5} for place in reading.top)
    assert math.exp(expected[0]) > 10 / NUM_TOKENS


def test_a_token_that_is_unlikely_is_among_those_kept(served: Make) -> None:
    made = probe(served({"a": "k"}), SET, arm="baseline")
    reading = made.readings[1]
    assert all(t in place for t, place in zip(reading.tokens[1:], reading.top, strict=True))


def test_prompts_are_answered_alone_among_others_and_drawn(served: Make) -> None:
    made = probe(served(SUCCESSORS), SET, arm="candidate")
    for mode in (Mode.GREEDY, Mode.BATCHED):
        assert text_of(made, "next", mode) == "b"
        assert text_of(made, "loop", mode) == "k" * 6
    assert {reply.finish for reply in made.replies if reply.ask == "loop"} <= {"length", "stop"}
    assert len(made.replies) == 9


def test_the_same_seed_draws_the_same_answer_and_leaves_the_generator_alone(served: Make) -> None:
    engine = served(SUCCESSORS)
    undecided = replace(SET, asks=(Ask(id="any", prompt="zz", max_tokens=6),))
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first = probe(engine, undecided, arm="candidate")
    assert torch.rand(1) == expected
    assert probe(engine, undecided, arm="candidate") == first
    drawn = {
        text_of(probe(engine, replace(undecided, seed=seed), arm="candidate"), "any", Mode.SAMPLED)
        for seed in range(4)
    }
    assert len(drawn | {text_of(first, "any", Mode.GREEDY)}) == 5


def test_logits_that_are_not_finite_are_named_and_never_a_number(served: Make) -> None:
    made = probe(served(SUCCESSORS, broken="k"), SET, arm="candidate")
    assert None in made.readings[0].logprobs
    assert None not in made.readings[1].logprobs
    loops = [reply for reply in made.replies if reply.ask == "loop"]
    assert {(reply.finish, reply.text) for reply in loops} == {("error", "")}
    assert "not finite" in str(loops[0].error)
    assert text_of(made, "next", Mode.SAMPLED) is not None


def test_the_number_of_threads_is_left_as_it_was(served: Make) -> None:
    before = torch.get_num_threads()
    probe(served(SUCCESSORS), SET, arm="candidate")
    assert torch.get_num_threads() == before
