"""A server's answers looked at in parts: what was sent ahead for later parts is let go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Endpoint, Suite, read_samples
from harness.score import score
from tests.score.http.fake import Script
from tests.score.test_watch import MULTIPLE_CHOICE, Watching

Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("tasks", "server")


@pytest.fixture(params=[{}, {"repeats": 2, "temperature": 0.6}], ids=["once", "twice"])
def asked(request: pytest.FixtureRequest, suite: Make, spec: Make) -> Suite:
    made: Suite = suite(spec("tiny_choice", **MULTIPLE_CHOICE), spec(**request.param))
    return made


def test_watched_to_the_end_each_item_is_asked_as_often_as_without(
    endpoint: Endpoint, script: Script, asked: Suite, tmp_path: Path
) -> None:
    watched, alone = tmp_path / "watched", tmp_path / "alone"
    card = score(endpoint, asked, arm="candidate", into=watched, watch=Watching())
    num_sent = len(script.payloads)
    score(endpoint, asked, arm="candidate", into=alone)
    assert len(script.payloads) == 2 * num_sent
    assert card.looks == {"tiny_next": (1, 3)}
    found = [read_samples(f / "samples" / "tiny_next.jsonl") for f in (watched, alone)]
    assert [(s.doc_id, s.repeat, s.answer) for s in found[0]] == [
        (s.doc_id, s.repeat, s.answer) for s in found[1]
    ]


def test_an_early_end_waits_for_nothing_more(
    endpoint: Endpoint, asked: Suite, tmp_path: Path
) -> None:
    card = score(endpoint, asked, arm="candidate", into=tmp_path, watch=Watching(ends_at=1))
    assert card.ended is not None
    assert [task.num_items for task in card.tasks] == [1]
