"""When a request was sent, and how long its answer took."""

from collections.abc import Iterable, Iterator

import pytest

from harness.score.client import Connection, RetryPolicy
from tests.score.http.test_bounds import PAYLOAD, answering, whole

BUSY = b"HTTP/1.1 503 Busy\r\n"


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_an_answer_is_timed_whichever_try_brings_it(failures: int) -> None:
    """Three tries: the first ones fail."""
    replies: Iterator[Iterable[bytes]] = iter(
        [whole(b"{}", status=BUSY)()] * failures + [whole(b"{}")()]
    )
    retries = RetryPolicy(tries=3, first_wait_s=0.01, timeout_s=5.0, probe_s=0.5)
    with answering(lambda: next(replies)) as url, Connection(url, key=None, retries=retries) as to:
        (reply,) = to.send("/v1/completions", [PAYLOAD]).result()
    assert reply.body == {}
    assert reply.begun is not None
    assert reply.seconds is not None
