"""The numbers behind the checks, against plain reference computations."""
# ruff: noqa: S311 -- seeded pseudo-random numbers are the purpose.

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.artifacts import Ask
from harness.smoke import surface
from harness.smoke.answers import is_right
from harness.smoke.readings import divergence, mean_over_passages, mean_over_tokens
from tests.smoke.scripted import PROSE, english_salad, log_softmax

LOGITS = st.lists(st.floats(-6, 6), min_size=12, max_size=12)


def top(logprobs: list[float], size: int) -> dict[int, float]:
    ranked = sorted(range(len(logprobs)), key=lambda token: -logprobs[token])[:size]
    return {token: logprobs[token] for token in ranked}


@settings(max_examples=100, deadline=None)
@given(LOGITS, LOGITS, st.integers(1, 12))
def test_the_divergence_of_what_is_known_never_exceeds_the_whole_one(
    first: list[float], second: list[float], size: int
) -> None:
    p, q = log_softmax(first), log_softmax(second)
    whole = sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
    known = divergence(top(p, size), top(q, size))
    assert -1e-3 < known < whole + 1e-3


def test_the_divergence_of_everything_known_is_the_whole_one() -> None:
    p, q = log_softmax([1.0, 2.0, 0.5]), log_softmax([0.0, 1.0, 2.0])
    whole = sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
    assert divergence(top(p, 3), top(q, 3)) == pytest.approx(whole, abs=2e-3)


def test_a_token_known_from_one_side_alone_goes_into_the_rest() -> None:
    same = {0: math.log(0.6)}
    assert divergence(same | {1: math.log(0.3)}, same | {2: math.log(0.3)}) == pytest.approx(0.0)


def test_tokens_of_one_passage_that_go_together_count_as_one() -> None:
    """Ten copies of each value in a passage tell no more than one."""
    values = [0.1, 0.4, -0.2, 0.3]
    copied = mean_over_passages([[value] * 10 for value in values])
    alone = mean_over_tokens(values)
    assert copied.mean == pytest.approx(alone.mean)
    assert copied.stderr == pytest.approx(alone.stderr)


def test_the_error_of_independent_tokens_is_the_standard_error_of_the_mean() -> None:
    values = [random.Random(1).gauss(0, 1) for _ in range(50)]
    mean = sum(values) / 50
    spread = sum((value - mean) ** 2 for value in values) / 49
    assert mean_over_tokens(values).stderr == pytest.approx(math.sqrt(spread / 50))


def test_the_error_covers_the_truth_as_often_as_it_says() -> None:
    """Passages shift as a whole; a lower bound at 95 % is above the truth about once in twenty."""
    generator = random.Random(3)
    above = 0
    for _ in range(600):
        shifts = [generator.gauss(0, 1) for _ in range(24)]
        estimate = mean_over_passages(
            [[s + generator.gauss(0, 0.5) for _ in range(10)] for s in shifts]
        )
        above += estimate.low > 0
    assert 0.03 < above / 600 < 0.09


def test_one_passage_alone_has_no_error_bar_that_helps() -> None:
    assert mean_over_passages([[1.0, 1.0]]).stderr == math.inf


@pytest.mark.parametrize(
    ("expect", "text", "right"),
    [
        ("391", "17*23 = 391.", True),
        ("391", "1391", False),
        ("Au", "AU", True),
        ("Au", "Because", False),
        ("北京", "中国的首都是北京。", True),
        ("CO₂", "It is CO₂", True),
        ("bear", "", False),
    ],
)
def test_an_expected_answer_counts_as_a_word_of_its_own(
    expect: str,
    text: str,
    right: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert is_right(Ask(id="a", prompt="?", expect=(expect,), max_tokens=8), text) is right


def test_the_surface_of_english_salad_is_that_of_english() -> None:
    texts, made = [PROSE], [english_salad(PROSE, 3)]
    assert surface.compression(made) == pytest.approx(surface.compression(texts), rel=0.25)
    assert surface.repetition(made) == surface.repetition(texts) == 0.0
    assert surface.script_entropy(made) == surface.script_entropy(texts) == 0.0


def test_surface_numbers_of_known_texts() -> None:
    assert surface.repetition(["a b c d " * 10]) == pytest.approx(1 - 4 / 37)
    assert surface.dominance(["x " * 9 + "y"]) == pytest.approx(0.9)
    assert surface.dominance(["!" * 50]) == 1.0
    assert surface.script_entropy(["ab вг"]) == pytest.approx(1.0)
    assert surface.empties(["", " \n", "a", "b"]) == 0.5
    assert surface.garbage(["ab\ufffd\x00"]) == 0.5
    assert surface.garbage(["a\tb\nc"]) == 0.0
    assert surface.length(["", "abcd"]) == 2.0
    assert surface.compression(["1\n" * 500]) > 20
    for measure in (surface.repetition, surface.compression, surface.dominance, surface.garbage):
        assert math.isfinite(measure([]))
        assert math.isfinite(measure([""]))
