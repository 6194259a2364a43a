"""Verdicts on what vLLM's own loaders made of good and damaged checkpoints, from one process.

Scores go through harness's HTTP client, lm-eval and the gate, as in a run; only the server is
the test's own, which loads one checkpoint after the other (several.py).
"""

import dataclasses
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness import shipped
from harness.artifacts import Arm, Decision, Endpoint, EngineSpec, Severity, Suite, Verdict
from harness.engines import read_demands
from harness.errors import ReasonCode
from harness.gate import judge
from harness.models import open_source
from harness.recipe import load_suite
from harness.score import read_arm, score
from harness.serve.vllm.answers import ask_abilities
from harness.serve.vllm.endpoint import ServerFacts, endpoint_of
from harness.serve.vllm.environment import ask_vllm
from harness.serve.vllm.observe import observe
from harness.serve.vllm.server import setting_of
from harness.serve.vllm.variables import REPORT_PREFIX

ENGINE = EngineSpec(name="vllm", numerics="declared", device="cpu", dtype="bfloat16")
Score = Callable[[str, Path], Arm]


@pytest.fixture(scope="module")
def suite() -> Suite:
    whole = load_suite("canary")
    names = ("canary_add", "canary_reverse", "canary_compare")
    few = [
        dataclasses.replace(task, items=60, margin=0.2)
        for task in whole.tasks
        if task.name in names
    ]
    return dataclasses.replace(whole, tasks=tuple(few), pooled_margin=None)


@pytest.fixture(scope="module")
def port(
    vllm_python: Path,
    server_environment: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    log = tmp_path_factory.mktemp("several") / "server.log"
    command = [str(vllm_python), str(Path(__file__).with_name("several.py")), str(number)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=os.environ | dict(server_environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while b"\nready\n" not in b"\n" + log.read_bytes():
            assert server.poll() is None, log.read_text(errors="replace")[-4000:]
            time.sleep(0.2)
        yield number
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def served(port: int, vllm_python: Path) -> Callable[[Path, Path], Endpoint]:
    """Load a folder, and look at how it was loaded."""
    environment = ask_vllm(str(vllm_python))
    answers = ask_abilities(environment)

    def load(folder: Path, records: Path) -> Endpoint:
        body = {"model": str(folder), "report": str(records / REPORT_PREFIX), "max_model_len": 256}
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/load", json.dumps(body))
        assert json.loads(connection.getresponse().read()) == {"loaded": str(folder)}
        connection.close()
        observed = observe(read_demands(open_source(str(folder))), records=records, log="")
        place = ServerFacts(
            base_url=f"http://127.0.0.1:{port}",
            version=environment.version,
            device="cpu",
            log=records / "server.log",
            max_model_len=256,
            arguments=(),
            key="",
        )
        return endpoint_of(setting_of(ENGINE, folder, environment, answers), observed, place)

    return load


@pytest.fixture(scope="module")
def scored(
    served: Callable[[Path, Path], Endpoint],
    suite: Suite,
    tmp_path_factory: pytest.TempPathFactory,
) -> Score:
    def run(arm: str, folder: Path) -> Arm:
        into = tmp_path_factory.mktemp(arm)
        score(served(folder, into), suite, arm=arm, into=into)
        return read_arm(into)

    return run


@pytest.fixture(scope="module")
def baseline(scored: Score) -> Arm:
    return scored("baseline", shipped.canary() / "model")


@pytest.mark.parametrize("name", ["nvfp4", "fp8", "nvfp4_experts_only"])
def test_a_good_checkpoint_is_go(
    scored: Score, suite: Suite, baseline: Arm, checkpoints: Mapping[str, Path], name: str
) -> None:
    candidate = scored("candidate", checkpoints[name])
    verdict = judge(suite, baseline, candidate, verified=True)
    assert verdict.decision is Decision.GO, verdict.summary
    deployment = candidate.scorecard.deployment
    assert deployment.exercised == deployment.declared != ()
    assert deployment.findings == ()


def test_swapped_fused_scales_are_no_go_on_their_accuracy(
    scored: Score, suite: Suite, baseline: Arm, damaged: Mapping[str, Path]
) -> None:
    verdict = judge(suite, baseline, scored("candidate", damaged["swapped_scales"]), verified=False)
    assert outcome(verdict) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)


def test_deleted_expert_input_scales_are_seen_in_what_was_loaded(
    served: Callable[[Path, Path], Endpoint], damaged: Mapping[str, Path], tmp_path: Path
) -> None:
    deployment = served(damaged["no_input_scales"], tmp_path).deployment
    (finding,) = deployment.findings
    assert (finding.severity, finding.reason) == (Severity.ERROR, ReasonCode.SCALE_MISSING)
    assert "192 of" in finding.message


def outcome(verdict: Verdict) -> tuple[Decision, ReasonCode]:
    return verdict.decision, verdict.reason_codes[0]
