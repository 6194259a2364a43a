"""The real vLLM as `harness serve` starts it: who may use it, what shows, and how it ends."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness import shipped
from harness.serve.process import processes_of_session

ROOT = Path(__file__).resolve().parents[3]
SECRET = "s3cret-of-somebody"  # noqa: S105 -- no secret


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server, as `harness serve --json` tells of it."""

    process: "subprocess.Popen[str]"
    port: int
    key: str
    said: str
    records: Path

    def status(self, path: str, *, key: str | None = None, body: object = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def below(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))


@pytest.fixture(scope="module")
def running(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve from a folder that somebody hostile filled."""
    folder = tmp_path_factory.mktemp("cloned")
    records = tmp_path_factory.mktemp("records")
    trap = f"open({str(folder / 'was_run')!r}, 'a').write(__name__ + ' ')\n"
    for name in ("torch", "vllm", "sitecustomize", "usercustomize", "typer", "psutil", "json"):
        (folder / f"{name}.py").write_text(trap, encoding="utf-8")
    (folder / ".env").write_text("VLLM_LOGGING_LEVEL=DEBUG\n", encoding="utf-8")
    for name in ("gcc", "lscpu", "numactl", "git", "python3"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {folder}/was_run\n")
        (folder / name).chmod(0o755)
    (folder / ".venv-vllm").mkdir()
    secrets = {"GITHUB_PAT": SECRET, "DATABASE_URL": SECRET, "VLLM_OWN_PASSWD": SECRET}
    place = {"PYTHONPATH": str(ROOT), "PATH": f":.:{os.environ['PATH']}", "PWD": str(folder)}
    command = [sys.executable, "-m", "harness", "serve", shipped.canary() / "model", "--json"]
    options = [
        "--engine",
        "vllm",
        "--vllm",
        vllm_python,
        "--max-model-len",
        "256",
        "--out",
        records,
    ]
    with subprocess.Popen(
        [*map(str, command), *map(str, options)],
        env=os.environ | secrets | place,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        told = json.loads("".join(lines))
        port = int(told["base_url"].removesuffix("/v1").rpartition(":")[2])
        said = json.dumps(told["deployment"])
        yield Running(process=process, port=port, key=told["api_key"], said=said, records=records)
        process.kill()


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/metrics", "/version", "/tokenize", "/invocations", "/openapi.json", "/x"],
)
def test_nobody_is_answered_without_the_key(running: Running, path: str) -> None:
    assert running.status(path) == 401
    assert running.status(path, key="another") == 401


def test_no_prompt_is_answered_without_the_key(running: Running) -> None:
    body = {"model": "harness", "prompt": "Once", "max_tokens": 1}
    for path in ("/v1/completions", "/v1/chat/completions", "/invocations", "//v1/completions"):
        assert running.status(path, body=body) == 401
    assert running.status("/v1/completions", key=running.key, body=body) == 200


def test_health_alone_is_open(running: Running) -> None:
    assert running.status("/health") == 200
    assert running.status("/v1/models", key=running.key) == 200


def test_the_key_shows_nowhere(running: Running) -> None:
    assert len(running.key) >= 32
    assert running.key not in running.said
    lines = [" ".join(process.cmdline()) for process in running.below()]
    assert len(lines) >= 4, "two keepers, the server and its engine"
    assert not [line for line in lines if running.key in line]
    for file in running.records.rglob("*"):
        assert running.key.encode() not in (file.read_bytes() if file.is_file() else b"")


def test_what_is_not_the_servers_reaches_no_process_of_it_and_no_record(running: Running) -> None:
    for process in running.below():
        assert SECRET not in process.environ().values()
    for file in running.records.rglob("*"):
        assert SECRET.encode() not in (file.read_bytes() if file.is_file() else b"")


def test_nothing_that_lies_in_the_current_folder_is_run(running: Running) -> None:
    folder = Path(f"/proc/{running.process.pid}/cwd").readlink()
    assert not (folder / "was_run").exists(), (folder / "was_run").read_text(encoding="utf-8")


def test_the_server_listens_on_this_machines_own_address_alone(running: Running) -> None:
    found = [
        connection.laddr
        for process in running.below()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert ("127.0.0.1", running.port) in [tuple(address) for address in found]
    assert {address.ip for address in found} <= {"127.0.0.1", "::1"}


def test_killed_with_its_keepers_it_leaves_nothing(running: Running) -> None:
    below = running.below()
    keepers = [p for p in below if any("keeper.py" in word for word in p.cmdline()[:5])]
    assert len(keepers) == 2
    sessions = {os.getsid(process.pid) for process in below}
    for process in (running.process, *keepers):
        os.kill(process.pid, signal.SIGKILL)
    give_up = time.monotonic() + 60
    while left := [pid for session in sessions for pid in processes_of_session(session)]:
        assert time.monotonic() < give_up, f"still there: {left}"
        time.sleep(0.1)
