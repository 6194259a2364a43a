"""The real vLLM, where its environment is found: the canary served, asked, and gone."""

import http.client
import json
import os
from pathlib import Path

import psutil
import pytest

from harness import shipped
from harness.artifacts import Endpoint, EngineSpec
from harness.models import open_source
from harness.serve import begun_ahead, resolve_engine, serve
from harness.serve.process import processes_of_session

from .test_strangers import status_of


def complete(endpoint: Endpoint, prompt: str) -> str:
    connection = http.client.HTTPConnection(endpoint.base_url.removeprefix("http://"))
    body = {"model": endpoint.model, "prompt": prompt, "max_tokens": 12, "temperature": 0}
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {endpoint.api_key}",
    }
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        return str(json.loads(connection.getresponse().read())["choices"][0]["text"])
    finally:
        connection.close()


@pytest.fixture
def engine(vllm_python: Path) -> EngineSpec:
    return resolve_engine(
        EngineSpec(
            name="vllm",
            numerics="declared",
            device="cpu",
            dtype="bfloat16",
            max_model_len=256,
            place=str(vllm_python),
        )
    )


def test_the_canary_is_served_by_vllm_and_nothing_is_left(engine: EngineSpec) -> None:
    with serve(engine, shipped.canary() / "model") as endpoint:
        assert isinstance(endpoint, Endpoint)
        assert endpoint.max_model_len == 256
        assert complete(endpoint, "Once there was a").startswith(" ")
        deployment = endpoint.deployment
        started = psutil.Process(os.getpid()).children(recursive=True)
        sessions = {os.getsid(process.pid) for process in started} - {os.getsid(0)}
    assert deployment.version.startswith(str(engine.version))
    assert deployment.declared == deployment.exercised == ()
    assert deployment.findings == ()
    assert deployment.loaded is not None
    assert deployment.loaded.num_filled == deployment.loaded.num_parameters > 0
    assert deployment.loaded.num_taken > 0
    assert len(sessions) >= 3, "two keepers and the server"
    assert [pid for session in sessions for pid in processes_of_session(session)] == []


def test_a_process_that_was_begun_before_serves_the_same_and_is_gone(
    engine: EngineSpec, tmp_path: Path
) -> None:
    source = open_source("canary")
    with begun_ahead(engine, lambda: 1 << 20, records=tmp_path, gpus=None) as ahead:
        assert ahead is not None
        with serve(engine, source.path, records=tmp_path, ahead=ahead) as endpoint:
            assert isinstance(endpoint, Endpoint)
            assert complete(endpoint, "Once there was a").startswith(" ")
            for path in ("/metrics", "/tokenize", "/v1/models"):
                assert status_of(endpoint, path, {}) == 401
            assert ahead.head_start_s > 0
            deployment, process = endpoint.deployment, endpoint.process
    assert (deployment.findings, deployment.not_observed) == ((), ())
    assert deployment.loaded is not None
    assert deployment.loaded.num_filled == deployment.loaded.num_parameters > 0
    assert process is not None
    assert processes_of_session(process.pid) == []
