"""Times are taken beside the answers, in blocks, and only what was really seen is said."""

import os
import time

import pytest

from harness.processes import mark_of
from harness.score.pace import (
    NUM_BLOCKS,
    first_tokens_of,
    machine,
    mean_between,
    pace_of,
    resident_bytes,
)
from harness.score.recording import UNKNOWN, Course

PAGE = """# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 3.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.5
vllm:time_to_first_token_seconds_created{engine="0",model_name="m"} 1.7e+09
vllm:time_to_first_token_seconds_count{engine="1",model_name="m"} 6.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="m"} 1.5
"""


def course(begun: float, tokens: int, seconds: float) -> Course:
    return Course(num_tokens=tokens, begun_s=time.monotonic() - 100 + begun, seconds=seconds)


def test_blocks_follow_the_order_of_asking_and_hold_every_request() -> None:
    courses = [course(float(n), 10, 0.5) for n in range(45)][::-1]
    pace = pace_of(courses, alone=True, num_at_once=8)
    assert pace is not None
    assert len(pace.blocks) <= NUM_BLOCKS
    assert sum(block.num_tokens for block in pace.blocks) == 450
    assert (pace.blocks[0].num_tokens, pace.blocks[0].num_answers) == (30, 3)
    assert (pace.alone, pace.num_at_once) == (True, 8)


def test_requests_of_one_batch_are_never_put_apart() -> None:
    batches = [course(float(n), 10, 2.0) for n in range(4)]
    courses = [batch for batch in batches for _ in range(32)]
    pace = pace_of(courses, alone=True, num_at_once=32)
    assert pace is not None
    assert [block.num_tokens for block in pace.blocks] == [320] * 4


def test_a_task_without_generated_answers_has_no_pace() -> None:
    assert pace_of([UNKNOWN] * 5, alone=True, num_at_once=1) is None


def test_first_tokens_are_read_from_all_engines_of_a_server() -> None:
    assert first_tokens_of(PAGE) == (2.0, 10.0)
    assert mean_between((0.5, 4.0), (2.0, 10.0)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "page", [None, "", "<html>", PAGE.replace(" 0.5", " much"), "time_to_first_token"]
)
def test_a_page_that_says_nothing_gives_no_time(page: str | None) -> None:
    assert mean_between((0.0, 0.0), first_tokens_of(page)) is None


def test_memory_is_that_of_a_servers_own_processes() -> None:
    assert resident_bytes(None) is None
    held = resident_bytes(mark_of(os.getsid(0)))
    assert held is None or held > 1 << 20


def test_a_machine_is_the_same_from_one_look_to_the_next() -> None:
    assert machine() == machine() != ""
