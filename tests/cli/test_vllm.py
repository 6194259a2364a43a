"""The real thing through the command line: vLLM servers, lm-eval over HTTP, a verdict."""

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Cli, Serving, serving
from tests.cli.test_main_job import delete_input_scales
from tests.tiers import slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
@slow("two real vLLM servers, one an arm")
def run_dir(
    vllm_python: Path,
    cli_process: Cli,
    quick: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    assert vllm_python.is_file()
    path = tmp_path_factory.mktemp("runs") / "nvfp4"
    done = cli_process(*quick, "--qformat", "nvfp4", "--engine", "vllm", "--run-dir", path)
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    assert "serve: its process has imported for" in done.err  # while its checkpoint was made
    return path


@pytest.fixture(scope="module")
def server(run_dir: Path, environment: dict[str, str]) -> Iterator[Serving]:
    with serving(run_dir / "checkpoint", environment) as running:
        yield running
        assert running.process.wait() == 130


def test_both_arms_ran_on_servers_that_are_known_to_the_bit(run_dir: Path) -> None:
    candidate = json.loads((run_dir / "deployment.json").read_text())
    baseline = json.loads((run_dir / "baseline" / "deployment.json").read_text())
    assert candidate["exercised"] == candidate["declared"] == ["weights:nvfp4", "inputs:nvfp4"]
    assert "Emulation" in candidate["kernels"]["experts"]
    assert (baseline["exercised"], baseline["declared"]) == ([], [])
    assert candidate["version"] == baseline["version"]
    for deployment in (candidate, baseline):
        assert deployment["findings"] == []
        assert deployment["loaded"]["num_filled"] == deployment["loaded"]["num_parameters"]
        assert Path(deployment["log"]).name == "server.log"
    assert (run_dir / "server.log").is_file()


def test_files_are_verified_under_the_names_of_the_server_that_loads_them(run_dir: Path) -> None:
    integrity = json.loads((run_dir / "integrity.json").read_text())
    version = json.loads((run_dir / "deployment.json").read_text())["version"].split()[0]
    by_id = {check["id"]: check for check in integrity["checks"]}
    assert by_id["engine-names-resolved"]["passed"]
    assert f"vllm=={version}" in by_id["engine-names-resolved"]["message"]


def test_typed_again_nothing_is_served_again(
    cli: Cli, quick: tuple[str, ...], run_dir: Path
) -> None:
    done = cli(*quick, "--qformat", "nvfp4", "--engine", "vllm", "--run-dir", run_dir)
    assert done.code == 0
    assert "score candidate: done before" in done.err
    assert "serve:" not in done.err


def test_deleted_expert_input_scales_are_no_go_before_scoring_even_unverified(
    cli: Cli, run_dir: Path, quick_suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "faulty"
    shutil.copytree(run_dir / "checkpoint", folder)
    assert delete_input_scales(folder) == 192
    options = ("--engine", "vllm", "--suite", quick_suite, "--skip-verify", "--json")
    done = cli("gate", folder, "--baseline", run_dir, *options, "--run-dir", tmp_path / "run")
    assert done.code == 4, done.err
    assert done.json["reason_codes"] == ["scale-missing"]
    assert "192 of" in done.json["verdict"]["summary"]
    assert not (tmp_path / "run" / "scorecard.json").exists()
    (finding,) = [f for f in done.json["deployment"]["findings"] if f["severity"] == "error"]
    assert finding["id"] == "parameter-not-filled"


def test_a_running_server_is_scored_by_its_url(
    cli: Cli,
    server: Serving,
    quick_suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, key, _ = server
    refused = cli("score", url, "--suite", quick_suite, "--out", tmp_path / "scores")
    assert (refused.code, "wants an API key" in refused.err) == (2, True)
    monkeypatch.setenv("HARNESS_API_KEY", key)
    done = cli("score", url, "--suite", quick_suite, "--out", tmp_path / "scores", "--json")
    assert done.code == 0, done.err
    assert all(task["value"] > 0.9 for task in done.json["tasks"])
    assert done.json["deployment"]["engine"] == "vllm"
    assert url.startswith(done.json["deployment"]["address"])


def test_ctrl_c_ends_the_server(server: Serving) -> None:
    server.process.send_signal(signal.SIGINT)
    server.process.wait()
    place = urlsplit(server.url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port))
