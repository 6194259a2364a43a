"""How many tokens a model can take, as its configuration says it."""

import dataclasses

import pytest

from harness.models import Source, open_source
from harness.preflight.asked import positions_of


@pytest.fixture(scope="module")
def canary() -> Source:
    return open_source("canary")


@pytest.mark.parametrize(
    ("written", "positions", "found"),
    [
        ({}, 4096, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 4096, 16384),
        (
            {"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768}},
            40960,
            131072,
        ),
        (
            {"rope_parameters": {"factor": 8.0, "original_max_position_embeddings": 8192}},
            131072,
            131072,
        ),
        (
            {"rope_parameters": {"full_attention": {"factor": 2.0}, "sliding_attention": {}}},
            1024,
            2048,
        ),
    ],
)
def test_a_stretch_counts_from_the_positions_that_it_stretches(
    canary: Source, written: dict[str, object], positions: int, found: int
) -> None:
    config = {"max_position_embeddings": positions, **written}
    assert positions_of(dataclasses.replace(canary, config=config)) == found
