"""Who listens in a server's place is asked nothing, and nobody is answered without the key."""

import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.artifacts import Endpoint
from harness.errors import EngineError
from harness.kept import blot_out
from harness.score.client import connect
from harness.serve.listening import foreign, listeners, sockets_of
from harness.serve.readiness import StartLimits

from .conftest import Fake

STRANGER = """
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    print(connection.recv(1000), flush=True)
"""


@contextmanager
def stranger(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that listens, and where."""
    command = [sys.executable, "-c", STRANGER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def status_of(endpoint: Endpoint, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(endpoint.base_url.removeprefix("http://"))
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_stranger_on_the_servers_port_is_named_and_asked_nothing(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.how(FAKE_VLLM="hang")
    with stranger() as (process, port):

        @contextmanager
        def lost_port() -> Iterator[int]:
            yield port

        monkeypatch.setattr("harness.serve.vllm.server.reserved_port", lost_port)
        with (
            pytest.raises(EngineError, match=rf"port {port} .* process {process.pid} \(python"),
            fake.served(),
        ):
            pytest.fail("it served")
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == "", "what it was sent"


def test_a_server_that_asks_for_no_key_is_ended(fake: Fake) -> None:
    fake.how(FAKE_VLLM="open")
    with pytest.raises(EngineError, match="without an API key"), fake.served(limits=StartLimits()):
        pytest.fail("it served")


def test_each_server_has_a_key_of_its_own(fake: Fake) -> None:
    with fake.served("one") as one, fake.served("two") as two:
        assert one.api_key != two.api_key
        assert len(str(one.api_key)) >= 32
        right = {"Authorization": f"Bearer {one.api_key}"}
        assert status_of(one, "/v1/models", {}) == 401
        assert status_of(two, "/v1/models", right) == 401
        assert status_of(one, "/v1/models", right) == 200
        assert str(one.api_key) not in repr(one) + repr(one.deployment)


def test_a_key_that_is_written_to_the_log_is_neither_shown_nor_left_there(fake: Fake) -> None:
    fake.how(FAKE_VLLM="leak")
    with fake.served() as endpoint:
        key = str(endpoint.api_key)
        assert key in (fake.records / "server.log").read_text(encoding="utf-8")
        for pid in fake.pids():
            os.kill(pid, signal.SIGKILL)
        with (
            pytest.raises(EngineError, match="no longer answers") as caught,
            connect(endpoint) as server,
        ):
            server.send("/v1/completions", [{"prompt": [[1]]}]).result()
    assert key not in str(caught.value)
    text = (fake.records / "server.log").read_text(encoding="utf-8")
    assert key not in text
    assert "the key is ***" in text


def test_the_server_runs_in_an_empty_folder_with_listed_variables(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PAT", "a secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    with fake.served() as endpoint:
        seen = json.loads((fake.records / "seen.json").read_text(encoding="utf-8"))
        assert list(Path(seen["cwd"]).iterdir()) == []
        assert seen["environment"]["VLLM_API_KEY"] == endpoint.api_key
        assert seen["environment"]["PYTHONSAFEPATH"] == "1"
        assert seen["environment"]["PYTHONPATH"].endswith("plugin")
        assert "SOME_PAT" not in seen["environment"]
        assert str(endpoint.api_key) not in " ".join(seen["arguments"])
    assert not Path(seen["cwd"]).exists()


def test_whoever_listens_after_the_server_has_ended_is_not_believed(fake: Fake) -> None:
    with fake.served() as endpoint:
        for pid in fake.pids():
            os.kill(pid, signal.SIGKILL)
        port = int(endpoint.base_url.rpartition(":")[2])
        with stranger(port) as (process, _):
            with (
                pytest.raises(EngineError, match="no longer answers: its process"),
                connect(endpoint) as server,
            ):
                server.send("/v1/completions", [{"prompt": [[1]]}]).result()
            process.kill()
            assert process.stdout is not None
            assert process.stdout.read() == "", "what it was sent"


def test_a_listening_socket_is_found_with_those_who_hold_it() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert listeners(port) == ()
        listener.listen()
        (found,) = listeners(port)
        assert found.inode in sockets_of(os.getpid())
        assert found.uid == os.getuid()
        assert foreign([found], [os.getpid()]) is None
        assert foreign([found], [1 << 30]) == found
        assert f"process {os.getpid()} " in found.owner()


def test_a_secret_is_blotted_out_wherever_a_log_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, secret = tmp_path / "log", "0123456789"
    for piece in range(1, 30):
        monkeypatch.setattr("harness.kept._PIECE", piece)
        log.write_text(f"a{secret}bcd{secret}{secret}\n0123{secret[:-1]}e", encoding="ascii")
        blot_out(secret, log)
        hidden = "*" * 10
        assert log.read_text(encoding="ascii") == f"a{hidden}bcd{hidden}{hidden}\n0123012345678e"
    blot_out(secret, tmp_path / "nothing")


def test_a_user_argument_is_one_word_of_the_command(fake: Fake) -> None:
    fake.engine = dataclasses.replace(
        fake.engine, arguments=("max_num_seqs=4", "enforce-eager=false")
    )
    with fake.served() as endpoint:
        seen = json.loads((fake.records / "seen.json").read_text(encoding="utf-8"))
    assert seen["arguments"][-2:] == ["--max-num-seqs=4", "--no-enforce-eager"]
    assert endpoint.deployment.arguments[-4:-2] == ("--max-num-seqs=4", "--no-enforce-eager")
