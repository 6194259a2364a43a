"""SGLang is read by its own /generate, whose answers may be short, of others, or not finite."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.artifacts import Endpoint
from harness.score import client, probe
from tests.score.http.fake import Script
from tests.score.http.test_probe import SET

pytestmark = pytest.mark.usefixtures("server")
Make = Callable[[], Endpoint]


@pytest.fixture(autouse=True)
def impatient_probe(monkeypatch: pytest.MonkeyPatch, impatient: client.RetryPolicy) -> None:
    def connect(endpoint: Endpoint) -> client.Connection:
        return client.connect(endpoint, retries=impatient)

    monkeypatch.setattr("harness.score.probing.connect", connect)


@pytest.fixture
def sglang(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, dialect="sglang")


def test_sglang_gives_the_readings_that_vllm_gives(
    endpoint: Endpoint, sglang: Endpoint, script: Script
) -> None:
    as_sglang, as_vllm = (probe(one, SET, arm="candidate") for one in (sglang, endpoint))
    assert as_sglang.readings == as_vllm.readings
    asked = [p for p in script.payloads if "input_ids" in p]
    assert [p["top_logprobs_num"] for p in asked] == [2, 2]
    assert all(p["logprob_start_len"] == 0 and p["return_logprob"] for p in asked)


def test_what_sglang_writes_as_null_is_not_finite(sglang: Endpoint, script: Script) -> None:
    script.faults["abk"] = ["clamped"]
    known, other = probe(sglang, SET, arm="candidate").readings
    assert known.logprobs == (-0.1, None)
    assert other.error is None


@pytest.mark.parametrize("fault", ["plain", "short", "others"])
def test_places_that_are_missing_or_of_other_tokens_are_no_reading(
    sglang: Endpoint, script: Script, fault: str
) -> None:
    script.faults["abk"] = [fault]
    known, other = probe(sglang, SET, arm="candidate").readings
    assert known.logprobs == ()
    assert known.error is not None
    assert other.error is None
