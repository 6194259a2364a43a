"""The engine's rules are vLLM's own: the installed one is asked the same questions."""

from collections import Counter
from pathlib import Path

import pytest

from scripts.same_as_vllm import compare


@pytest.fixture(scope="module")
def answers(vllm_python: Path) -> tuple[str, int, list[str], list[str | None]]:
    return compare(str(vllm_python), num_lists=24)


def test_each_answer_is_vllms(answers: tuple[str, int, list[str], list[str | None]]) -> None:
    _, _, different, _ = answers
    assert [line for line in different if line] == []


def test_the_questions_are_many_and_have_every_kind_of_answer(
    answers: tuple[str, int, list[str], list[str | None]],
) -> None:
    _, num_lists, different, theirs = answers
    assert num_lists >= 500
    kinds = Counter(theirs)
    assert set(kinds) == {None, "NVFP4", "FP8", "FP8_PER_BLOCK", "split"}
    assert min(kinds.values()) > len(different) / 100
