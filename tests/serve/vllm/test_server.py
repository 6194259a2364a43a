"""A server's life against a stand-in that speaks vLLM's protocol: real processes, real HTTP."""

import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from harness.artifacts import Deployment, Endpoint
from harness.errors import EngineError, ReasonCode
from harness.serve import wait_until_gone
from harness.serve.readiness import StartLimits

from . import fake_vllm
from .conftest import Fake

Gone = Callable[[Iterable[int], float], bool]
RUN = Path(__file__).parents[1] / "serving_run.py"
REPOSITORY = Path(__file__).resolve().parents[3]


def listed(endpoint: Endpoint) -> object:
    connection = http.client.HTTPConnection(endpoint.base_url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    connection.request("GET", "/v1/models", headers=headers)
    try:
        return json.loads(connection.getresponse().read())["data"]
    finally:
        connection.close()


def is_listened_to(base_url: str) -> bool:
    host, _, port = base_url.removeprefix("http://").partition(":")
    with socket.socket() as visitor:
        return visitor.connect_ex((host, int(port))) == 0


def test_a_server_answers_inside_the_context_and_is_gone_after_it(
    fake: Fake, all_gone: Gone
) -> None:
    with fake.served() as endpoint:
        assert listed(endpoint) == [{"id": endpoint.model, "max_model_len": 64}]
        assert endpoint.max_model_len == 64
        pids = fake.pids()
    assert all_gone(pids, 0)
    assert not is_listened_to(endpoint.base_url)


def test_a_deployment_says_what_was_served_and_how(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    fake.engine = dataclasses.replace(fake.engine, arguments=("max-num-seqs=4",))
    with fake.served() as endpoint:
        found = endpoint.deployment
    assert isinstance(found, Deployment)
    assert (found.engine, found.version) == ("vllm", "0.32.0 (torch 2.13.0)")
    assert (found.device, found.dtype) == ("cpu", "bfloat16")
    assert found.model == str(fake.model)
    assert "--max-num-seqs=4" in found.arguments
    assert "VLLM_CPU_OMP_THREADS_BIND=nobind" in found.arguments
    assert not any("--port" in argument for argument in found.arguments)
    assert found.kernels["experts"] == "EMULATION CpuEmulationNvFp4Experts"
    assert found.exercised == found.declared == ()
    assert found.loaded is not None
    assert (found.loaded.num_tensors, found.loaded.num_filled) == (10, 12)
    assert found.findings == ()
    assert found.log == str(fake.records / "server.log")


def test_a_server_without_a_load_report_is_not_believed(fake: Fake) -> None:
    fake.how(FAKE_REPORT="null")
    with fake.served() as endpoint:
        (finding,) = endpoint.deployment.findings
    assert finding.id == "load-report-missing"
    assert finding.reason == ReasonCode.LOAD_MISMATCH


def test_an_earlier_servers_report_is_not_taken_for_this_ones(fake: Fake) -> None:
    fake.how(FAKE_REPORT="null")
    fake.records.mkdir()
    (fake.records / "load_report.rank0.json").write_text(
        json.dumps(fake_vllm.REPORT), encoding="utf-8"
    )
    with fake.served() as endpoint:
        assert [f.id for f in endpoint.deployment.findings] == ["load-report-missing"]


@pytest.mark.parametrize(
    "death",
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", ReasonCode.OUT_OF_MEMORY, "Memory ran out"),
        (
            "ValueError: Failed to find a kernel that can implement the NVFP4 linear layer.",
            ReasonCode.UNSUPPORTED_FORMAT,
            "no kernel for the checkpoint's format",
        ),
        (
            "OSError: Can't load image processor for '/m'.",
            ReasonCode.ENGINE_FAILED,
            "copy preprocessor_config.json",
        ),
        ("OSError: [Errno 98] Address already in use", ReasonCode.ENGINE_FAILED, "took the port"),
        (
            "RuntimeError: harness_vllm: vLLM '0.31.0' on 'cpu' is not known",
            ReasonCode.PREREQUISITE_MISSING,
            "scripts/setup-vllm",
        ),
        ("api_server.py: error: unrecognized arguments: --x", ReasonCode.BAD_USAGE, "--engine-arg"),
    ],
)
def test_a_dead_server_is_explained_by_the_end_of_its_log(
    death: tuple[str, ReasonCode, str], fake: Fake
) -> None:
    line, reason, hint = death
    fake.how(FAKE_VLLM="die")
    fake.how(FAKE_LOG=line)
    with pytest.raises(EngineError, match="status 1") as caught, fake.served():
        pass
    assert caught.value.reason == reason
    assert line in str(caught.value)
    assert hint in str(caught.value)


def test_a_dead_server_leaves_nothing(fake: Fake, all_gone: Gone) -> None:
    fake.how(FAKE_VLLM="die")
    fake.how(FAKE_LOG="no known cause")
    with pytest.raises(EngineError) as caught, fake.served():
        pass
    assert caught.value.reason == ReasonCode.ENGINE_FAILED
    assert all_gone(fake.pids(), 0)


def test_a_silent_server_is_given_up(fake: Fake, all_gone: Gone) -> None:
    fake.how(FAKE_VLLM="hang")
    limits = StartLimits(silence_seconds=2)
    with pytest.raises(EngineError, match="given up"), fake.served(limits=limits):
        pass
    assert all_gone(fake.pids(), 0)


def test_a_slow_server_is_waited_for_as_long_as_its_log_moves(
    fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.how(FAKE_VLLM="slow")
    limits = StartLimits(silence_seconds=1.5, progress_seconds=0.5, poll_seconds=0.1)
    with caplog.at_level("INFO", logger="harness.serve"), fake.served(limits=limits):
        pass
    assert any("Loading shard" in record.getMessage() for record in caplog.records)


def test_an_error_inside_the_context_ends_the_server(fake: Fake, all_gone: Gone) -> None:
    with pytest.raises(ZeroDivisionError), fake.served():
        raise ZeroDivisionError
    assert all_gone(fake.pids(), 0)


@pytest.mark.parametrize(
    "ending",
    [
        ("alone", signal.SIGINT, 130),
        ("alone", signal.SIGTERM, 143),
        ("alone", signal.SIGKILL, -signal.SIGKILL),
        ("forked", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_nothing_is_left_when_the_run_is_ended_by_a_signal(
    ending: tuple[str, signal.Signals, int], fake: Fake, all_gone: Gone
) -> None:
    how, number, status = ending
    say = Path(str(fake.engine.place)).parents[1] / "how.json"
    say.write_text('{"FAKE_VLLM": "ready"}', encoding="utf-8")
    run = subprocess.Popen(
        [
            sys.executable,
            str(RUN),
            "vllm",
            str(fake.engine.place),
            str(fake.model),
            str(fake.records),
            how,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert run.stdout is not None
    base_url = run.stdout.readline().strip()
    pids = fake.pids()
    assert is_listened_to(base_url)
    run.send_signal(number)
    assert run.wait() == status
    run.stdout.close()
    # A run that was killed cannot wait for its keepers; every other one has.
    assert all_gone(pids, 40 if number == signal.SIGKILL else 0)
    assert not is_listened_to(base_url)


def test_both_arms_can_be_served_at_once(fake: Fake) -> None:
    with fake.served("one") as one, fake.served("two") as two:
        assert one.base_url != two.base_url
        assert is_listened_to(one.base_url)
        assert is_listened_to(two.base_url)


def test_a_server_that_dies_while_in_use_is_named_with_the_end_of_its_log(fake: Fake) -> None:

    def use() -> None:
        with fake.served() as endpoint:
            for pid in fake.pids():
                os.kill(pid, signal.SIGKILL)
            wait_until_gone(endpoint.base_url, poll_seconds=0.05)

    with pytest.raises(EngineError, match=r"ended with status 137 while it was in use") as caught:
        use()
    assert "server.log', it ends with:\n" in str(caught.value)


def test_a_failure_of_ours_is_not_blamed_on_a_server_that_answers(fake: Fake) -> None:

    def use() -> None:
        with fake.served():
            message = "something else"
            raise EngineError(message)

    with pytest.raises(EngineError, match=r"^something else$"):
        use()
