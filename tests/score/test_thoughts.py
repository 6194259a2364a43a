"""Thoughts and answers have a budget each; what outruns one is told from what outruns the other.

The tokenizer makes a token of each letter, so that budgets can be counted by hand: three for the
thoughts with the slash that ends them, three for the answer with the token that ends it.
"""

import pytest

from harness.score.asking import Limits, Thoughts
from harness.score.recording import Finish
from harness.score.thoughts import Spoken, Told, tell, tell_chat
from tests.score.conftest import END, make_tokenizer

LIMITS = Limits(stops=("\n",), answer_budget=3, thoughts=Thoughts("/", 3))
STOP, LENGTH, CUT = Finish.STOP, Finish.LENGTH, Finish.THOUGHTS_CUT
CASES = {
    "both within": ("mn/bc", True, Told("bc", STOP, 3)),
    "stops do not end thoughts": ("\n\n/ b\nc", False, Told("b", STOP, 3)),
    "an answer that goes on": ("m/bc", False, Told("bc", LENGTH, 2)),
    "an answer one token too long by its end": ("m/bcd", True, Told("bcd", LENGTH, 2)),
    "an answer that uses what the thoughts left": ("/bcdef", False, Told("bcd", LENGTH, 1)),
    "a stop beyond the answer's budget": ("/bcd\n", False, Told("bcd", LENGTH, 1)),
    "a stop within it, and more behind": ("/b\nefg", False, Told("b", STOP, 1)),
    "no answer": ("mn/", True, Told("", STOP, 3)),
    "thoughts one token too long": ("mno/b", True, Told("", CUT, 4)),
    "thoughts that never end": ("mnopqr", False, Told("", CUT, 6)),
    "a model that ends within its thoughts": ("mn", True, Told("", CUT, 3)),
    "thoughts that end twice": ("m//b", True, Told("b", STOP, 3)),
    "what ends thoughts within an answer": ("mn/b/", True, Told("b/", STOP, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_each_budget_is_kept_by_what_is_read(case: str) -> None:
    text, stopped, expected = CASES[case]
    assert tell(text, LIMITS, make_tokenizer(), stopped=stopped) == expected


@pytest.mark.parametrize("is_apart", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_chat_is_told_by_the_tokens_that_the_server_names(case: str, *, is_apart: bool) -> None:
    text, stopped, expected = CASES[case]
    content = text
    if is_apart:  # as a reasoning parser has it: by the end that counts, nothing if there is none
        ends = text[:3].count("/") or text.count("/")
        content = "/".join(text.split("/")[ends:]) if ends else ""
    tokens = [*text, *([END] if stopped else [])]
    spoken = Spoken(content, is_apart=is_apart, tokens=tokens)
    assert tell_chat(spoken, LIMITS, stopped=stopped) == expected


def test_a_token_that_holds_more_than_the_end_of_the_thoughts_counts_as_thought() -> None:
    tokens = ["m", "/\n", "b", "c", "d", "e"]
    spoken = Spoken("m/\nbcde", is_apart=False, tokens=tokens)
    assert tell_chat(spoken, LIMITS, stopped=False) == Told("bcd", LENGTH, 2)


def test_a_chat_whose_text_lost_what_ends_its_thoughts_is_not_read() -> None:
    spoken = Spoken("mb", is_apart=False, tokens=["m", "/", "b"])
    with pytest.raises(ValueError, match="its text lacks '/', which ends its thoughts"):
        tell_chat(spoken, LIMITS, stopped=False)


def test_a_model_that_does_not_think_needs_no_tokenizer() -> None:
    plain = Limits(stops=("\n",), answer_budget=3)
    assert tell("b\nc", plain, None, stopped=False) == Told("b", STOP)
