"""A real MLflow server is told of a night, once however often it is typed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.nightly.conftest import Stage, runs, stage
from tests.nightly.test_typed import nightly, played
from tests.tiers import slow
from tests.typed import typed

__all__ = ["played", "runs", "stage"]
LOSS = "no-go"


@pytest.fixture(scope="session")
@slow("starts an MLflow server")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a database and a folder of artifacts of its own."""
    pytest.importorskip("mlflow.server", reason="needs mlflow (beside the extra `mlflow`)")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", "--workers=1"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, f"--artifacts-destination={folder}/artifacts"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        while not is_up(address):
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def is_up(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=60).ok
    except requests.RequestException:
        return False


def put_aside(address: str, project: str) -> None:
    """Give what earlier tests left another name."""
    from mlflow import MlflowClient  # noqa: PLC0415 -- an extra

    client = MlflowClient(tracking_uri=address)
    if found := client.get_experiment_by_name(project):
        client.rename_experiment(found.experiment_id, f"{project} {found.experiment_id}")


def kept(address: str, project: str) -> list[Any]:
    from mlflow import MlflowClient  # noqa: PLC0415 -- an extra

    client = MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(project)
    return list(client.search_runs([found.experiment_id])) if found else []


def artifacts(address: str, run: Any) -> list[str]:  # noqa: ANN401 -- MLflow's
    from mlflow import MlflowClient  # noqa: PLC0415 -- an extra

    client = MlflowClient(tracking_uri=address)
    return [file.path for file in client.list_artifacts(run.info.run_id)]


@pytest.fixture
def told(mlflow_server: str, played: Stage) -> str:
    """The address, after a night of two cells was told, in an experiment of the test's own."""
    put_aside(mlflow_server, "m")
    played.cells({"a": "go", "b": LOSS})
    done = nightly(played, "--mlflow", mlflow_server)
    assert done.code == 4
    assert f"mlflow: '{mlflow_server}' has 2 runs of 'm'" in done.err
    return mlflow_server


def by_cell(address: str) -> dict[str, Any]:
    return {run.data.params["cell"]: run for run in kept(address, "m")}


def test_each_cell_is_a_run_with_its_verdict(told: str) -> None:
    found = by_cell(told)
    assert {cell: run.data.tags["verdict"] for cell, run in found.items()} == {
        "a": "GO",
        "b": "NO-GO",
    }
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_digests_are_parameters_and_the_report_is_an_artifact(told: str) -> None:
    run = by_cell(told)["a"]
    assert len(run.data.params["sha256.recipe"]) == 64
    assert artifacts(told, run) == ["report.html", "report.md"]


def test_typed_again_nothing_is_told_twice(told: str, played: Stage) -> None:
    before = {run.info.run_id for run in kept(told, "m")}
    assert nightly(played, "--collect", "--mlflow", told).code == 4
    assert {run.info.run_id for run in kept(told, "m")} == before


def test_a_run_that_was_cut_off_is_finished(told: str, played: Stage) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 -- an extra

    run = by_cell(told)["a"]
    MlflowClient(tracking_uri=told).update_run(run.info.run_id, status="RUNNING")
    nightly(played, "--collect", "--mlflow", told)
    again = by_cell(told)["a"]
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")


def test_one_run_s_verdict_is_told_by_report(mlflow_server: str, runs: Path) -> None:
    for _ in range(2):
        assert typed("report", runs / "go", "--mlflow", mlflow_server).code == 0
    (run,) = kept(mlflow_server, "harness")
    assert (run.info.run_name, run.data.tags["verdict"]) == ("nvfp4 of canary", "GO")


@pytest.fixture
@slow("waits for a server that is not there")
def nobody() -> str:
    pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    return "http://me:hunter2@127.0.0.1:1"


def test_a_server_that_is_down_changes_no_exit_code(nobody: str, played: Stage) -> None:
    played.cells({"a": "go"})
    done = nightly(played, "--mlflow", nobody)
    assert done.code == 0
    (line,) = [one for one in done.err.splitlines() if one.startswith("mlflow:")]
    assert line.startswith("mlflow: 'http://127.0.0.1:1' was not told: ")
    assert "hunter2" not in done.err + done.out
