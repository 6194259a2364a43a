"""The scripted server, running, and the endpoint that describes it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Deployment, Endpoint
from harness.score import client
from tests.score.http.fake import ALPHABET, Handler, Script, Server


@pytest.fixture
def tokenizer_folder(served: Callable[..., Any], tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    served({}).tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def script(served: Callable[..., Any], tokenizer_folder: Path) -> Script:
    listed: dict[str, object] = {"id": "tiny", "root": str(tokenizer_folder), "max_model_len": 64}
    return Script(served({}).tokenizer, ALPHABET, models=[listed])


@pytest.fixture
def server(script: Script) -> Iterator[Server]:
    handler = type("Scripted", (Handler,), {"script": script})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def base_url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def endpoint(base_url: str, tokenizer_folder: Path, served: Callable[..., Any]) -> Endpoint:
    deployment: Deployment = served({}).deployment
    return Endpoint(
        base_url=base_url,
        model="tiny",
        tokenizer=str(tokenizer_folder),
        max_model_len=64,
        num_concurrent=2,
        deployment=deployment,
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> client.RetryPolicy:
    retries = client.RetryPolicy(tries=3, first_wait_s=0.01, timeout_s=0.5, probe_s=0.3)
    for module in ("sending", "proof"):
        monkeypatch.setattr(f"harness.score.{module}.RETRIES", retries)
    return retries
