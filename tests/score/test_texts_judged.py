"""Texts that two models read, from their scores to the verdict: equal, worse, and too few."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Decision, Verdict
from harness.gate import judge
from harness.score import check_suite, read_arm, score
from tests.score.conftest import write_task

Make = Callable[..., Any]
READ = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
"""
FOLLOWS: Mapping[str, str] = {"a": "b", "b": "c", "c": "a", "k": "k", " ": "a"}


@pytest.fixture
def judged(tasks: Path, served: Make, spec: Make, suite: Make, tmp_path: Path) -> Make:
    def run(candidate: Mapping[str, str], *, items: int = 24) -> Verdict:
        texts: list[dict[str, object]] = [
            {"text": f"{'abc' * (1 + i % 5)} {'k' * (i % 7)}{'x' * (i % 3)}"} for i in range(items)
        ]
        write_task(tasks, "read", texts, READ)
        form = {"margin": None, "relative_margin": 0.05, "spread": 0.1}
        asked = suite(spec("read", metric="byte_perplexity", items=items, **form))
        check_suite(asked)
        models = {"baseline": served(FOLLOWS), "candidate": served(candidate, digest="f")}
        for arm, model in models.items():
            score(model, asked, arm=arm, into=tmp_path / arm)
        arms = (read_arm(tmp_path / arm) for arm in models)
        return judge(asked, *arms, verified=True)

    return run


def test_a_candidate_that_reads_alike_is_go(judged: Make) -> None:
    assert judged(FOLLOWS).decision is Decision.GO


def test_a_candidate_that_no_longer_knows_what_follows_is_no_go(judged: Make) -> None:
    verdict = judged({**FOLLOWS, "c": "x"})
    assert verdict.decision is Decision.NO_GO
    assert "times the baseline's" in verdict.summary


def test_a_few_texts_decide_nothing(judged: Make) -> None:
    assert judged(FOLLOWS, items=9).decision is Decision.INCONCLUSIVE
