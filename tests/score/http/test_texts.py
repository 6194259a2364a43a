"""Texts that a server reads: in lm-eval's pieces, the same as in this process, failures unknown."""

from collections.abc import Callable
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Endpoint, Sample, Suite, TaskScore, read_samples
from harness.score import score
from tests.score.conftest import ALPHABET_TEXTS, write_task
from tests.score.http.fake import ALPHABET, Script

READ = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
"""
PIECE = 30
"""Tokens of a piece where 32 are allowed: one goes before, one is generated."""

pytestmark = pytest.mark.usefixtures("server")
Make = Callable[..., Any]
Ask = Callable[[], tuple[TaskScore, tuple[Sample, ...]]]


@pytest.fixture
def reading(tasks: Path, spec: Make, suite: Make) -> Suite:
    rows: list[dict[str, object]] = [{"text": text} for text in ALPHABET_TEXTS]
    write_task(tasks, "read", rows, READ)
    form = {"margin": None, "relative_margin": 0.01, "spread": 0.1}
    made: Suite = suite(spec("read", metric="byte_perplexity", items=len(rows), **form))
    return made


@pytest.fixture
def ask(endpoint: Endpoint, reading: Suite, tmp_path: Path) -> Ask:
    def make() -> tuple[TaskScore, tuple[Sample, ...]]:
        asked = replace(endpoint, max_model_len=32)
        card = score(asked, reading, arm="candidate", into=tmp_path / "out")
        return card.tasks[0], read_samples(tmp_path / "out" / card.tasks[0].samples)

    return make


def expected(text: str) -> float:
    """Return what the scripted server says of a text: a letter is followed as it knows, or not."""
    before = ["<|end|>", *text]
    known = (ALPHABET.get(last, "a") == letter for last, letter in zip(before, text, strict=False))
    return sum(-0.1 if one else -5.0 for one in known)


def test_pieces_of_a_text_add_up_to_it(ask: Ask, script: Script) -> None:
    _, samples = ask()
    assert [s.value for s in samples] == pytest.approx([expected(text) for text in ALPHABET_TEXTS])
    assert {s.finish for s in samples} == {"scored"}
    lengths = [len(payload["prompt"][0]) for payload in script.payloads]
    assert max(lengths) == PIECE + 1


def test_what_is_read_is_the_same_in_this_process(
    ask: Ask, served: Make, reading: Suite, tmp_path: Path
) -> None:
    task, over_http = ask()
    card = score(served(ALPHABET), reading, arm="candidate", into=tmp_path / "in")
    in_process = read_samples(tmp_path / "in" / card.tasks[0].samples)
    same = [(s.doc_hash, s.prompt_hash, s.weight, s.finish) for s in over_http]
    assert same == [(s.doc_hash, s.prompt_hash, s.weight, s.finish) for s in in_process]
    assert (task.num_errors, task.num_prompts_cut, task.num_empty) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["400", "hang", "null", "no usage"])
def test_a_piece_that_is_not_read_leaves_its_text_unknown(
    ask: Ask, script: Script, fault: str
) -> None:
    piece = "<|end|>" + "x" * PIECE
    script.faults[piece] = [fault]
    task, samples = ask()
    failed = [s.finish == "error" for s in samples]
    assert failed == [text.startswith("x") for text in ALPHABET_TEXTS]
    assert (task.num_errors, task.num_items) == (1, len(ALPHABET_TEXTS))
    known = [s for s in samples if s.finish != "error"]
    mean = sum(s.value for s in known) / sum(s.weight or 0.0 for s in known)
    assert task.value == pytest.approx(exp(-mean))
