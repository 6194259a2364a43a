"""A model that thinks twice as long is caught on its real answers, though each of them is right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Band, Decision, Tier
from harness.errors import ReasonCode
from harness.gate import judge
from harness.score import read_arm, score
from tests.score.conftest import GENERATE, served, spec, suite, tasks, write_task  # noqa: F401

Make = Callable[..., Any]
ITEMS = 40
BRIEF = {"?": "m", "m": "/", "/": "b", "b": "<|end|>"}
LENGTHY = {"?": "m", "m": "n", "n": "o", "o": "p", "p": "q", "q": "/", "/": "b", "b": "<|end|>"}
"""The same answer after more thoughts."""
HOW = {"thinking": True, "think_end_token": "/", "thinking_budget": 10, "max_truncated": 0.0}


def test_a_candidate_that_thinks_longer_is_no_go_at_equal_accuracy(
    served: Make,  # noqa: F811
    spec: Make,  # noqa: F811
    suite: Make,  # noqa: F811
    tasks: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"{n} ?", "target": "b"} for n in range(ITEMS)]
    write_task(tasks, "tiny_thoughts", rows, GENERATE)
    asked = suite(
        spec("tiny_thoughts", items=ITEMS, margin=0.2),
        length=Band(band=0.05, tier=Tier.CRITICAL),
        **HOW,
    )
    arms = {}
    for arm, successors, digest in (("baseline", BRIEF, "c"), ("candidate", LENGTHY, "d")):
        score(served(successors, digest=digest), asked, arm=arm, into=tmp_path / arm)
        arms[arm] = read_arm(tmp_path / arm)
    verdict = judge(asked, arms["baseline"], arms["candidate"], verified=True)
    task = verdict.tasks[0]
    assert (task.baseline, task.candidate, task.decision) == (1.0, 1.0, Decision.GO)
    assert (verdict.decision, verdict.reason_codes[0]) == (
        Decision.NO_GO,
        ReasonCode.ANSWERS_LONGER,
    )
    assert task.length is not None
    assert task.length.ratio == pytest.approx(8 / 4)
    assert (task.length.baseline_thoughts, task.length.candidate_thoughts) == (2.0, 6.0)
