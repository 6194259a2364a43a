"""A server's life against a stand-in that speaks SGLang's protocol: real processes, real HTTP."""

import dataclasses
import json

import pytest

from harness.artifacts import Severity
from harness.errors import EngineError, ReasonCode
from harness.over_http import get
from harness.serve.readiness import StartLimits

from . import fake_sglang_report as told
from .conftest import Fake

SOON = StartLimits(silence_seconds=2, progress_seconds=1, poll_seconds=0.1)


def test_a_server_answers_inside_the_context_and_is_gone_after_it(fake: Fake) -> None:
    with fake.served() as endpoint:
        found = get(f"{endpoint.base_url}/v1/models", seconds=5, key=endpoint.api_key or "")
        assert found is not None
        assert found.values()["data"][0]["id"] == endpoint.model  # type: ignore[index]
        assert endpoint.max_model_len == 64
    assert get(f"{endpoint.base_url}/health", seconds=1) is None


def test_a_deployment_says_what_was_served_and_how(fake: Fake) -> None:
    fake.engine = dataclasses.replace(fake.engine, arguments=("moe-runner-backend=triton",))
    with fake.served() as endpoint:
        found = endpoint.deployment
    assert (found.engine, found.version) == ("sglang", "0.5.15 (torch 2.11.0)")
    assert (found.device, found.dtype) == ("NVIDIA H200 (sm_90)", "bfloat16")
    assert "--moe-runner-backend=triton" in found.arguments
    assert not any("--port" in argument or "--config" in argument for argument in found.arguments)
    assert found.kernels["experts"] == "ModelOptNvFp4FusedMoEMethod marlin"
    assert found.loaded is not None
    assert (found.loaded.num_tensors, found.loaded.num_filled) == (10, 12)
    assert found.findings == ()
    assert found.not_observed == ()
    assert endpoint.dialect == "sglang"


def test_the_key_is_in_no_argument_and_its_file_is_private_and_gone(fake: Fake) -> None:
    with fake.served() as endpoint:
        seen = fake.seen()
        assert endpoint.api_key is not None
        assert not any(endpoint.api_key in argument for argument in seen["arguments"])
        assert not any(endpoint.api_key in value for value in seen["environment"].values())
        assert seen["mode"] == 0o600
    assert not told.settings_of(seen).exists()


def test_the_key_that_sglang_prints_is_blotted_out_of_the_log(fake: Fake) -> None:
    fake.how(FAKE_SGLANG="leak")
    with fake.served() as endpoint:
        text = (fake.records / "server.log").read_text(encoding="utf-8")
        assert endpoint.api_key is not None
        assert "server_args=ServerArgs(api_key='***" in text
        assert endpoint.api_key not in text


def test_the_server_sees_the_plugin_and_nothing_of_the_callers(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s")
    monkeypatch.setenv("SGLANG_PLUGINS", "theirs")
    with fake.served():
        seen = fake.seen()
    assert seen["environment"]["PYTHONPATH"].endswith("harness/plugin")
    assert "SECRET_TOKEN" not in seen["environment"]
    assert "SGLANG_PLUGINS" not in seen["environment"]
    assert seen["cwd"] not in (str(fake.model), str(fake.records))


def test_a_server_that_answers_without_a_key_is_ended(fake: Fake) -> None:
    fake.how(FAKE_SGLANG="open")
    with pytest.raises(EngineError, match="without an API key"), fake.served():
        pass


@pytest.mark.parametrize("fault", ["sick", "wedged", "other"])
def test_a_server_that_makes_no_token_or_serves_another_name_is_never_ready(
    fake: Fake, fault: str
) -> None:
    fake.how(FAKE_SGLANG=fault)
    with pytest.raises(EngineError, match="given up"), fake.served(SOON):
        pass


def test_a_server_that_says_nothing_is_given_up(fake: Fake) -> None:
    fake.how(FAKE_SGLANG="hang")
    with pytest.raises(EngineError, match="given up"), fake.served(SOON):
        pass


def test_a_slow_server_is_waited_for_as_long_as_its_log_moves(fake: Fake) -> None:
    fake.how(FAKE_SGLANG="slow")
    with fake.served(dataclasses.replace(SOON, silence_seconds=1.5)) as endpoint:
        assert endpoint.max_model_len == 64


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", ReasonCode.OUT_OF_MEMORY),
        ("launch_server.py: error: unrecognized arguments: --x", ReasonCode.BAD_USAGE),
        ("RuntimeError: something else", ReasonCode.ENGINE_FAILED),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
            ReasonCode.OUT_OF_MEMORY,
        ),
    ],
)
def test_a_death_has_its_cause(fake: Fake, line: str, reason: ReasonCode) -> None:
    fake.how(FAKE_SGLANG="die", FAKE_LOG=line)
    with pytest.raises(EngineError) as caught, fake.served():
        pass
    assert caught.value.reason is reason
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("    assert param_data.shape == loaded_weight.shape", ReasonCode.LOAD_MISMATCH),
        ("ValueError: something else", ReasonCode.ENGINE_FAILED),
    ],
)
def test_an_sglang_that_kills_itself_is_not_said_to_lack_memory(
    fake: Fake, line: str, reason: ReasonCode
) -> None:
    fake.how(FAKE_SGLANG="child-died", FAKE_LOG=line)
    with pytest.raises(EngineError) as caught, fake.served():
        pass
    assert caught.value.reason is reason


def test_a_death_after_a_bad_load_is_explained_by_the_load(fake: Fake) -> None:
    fake.how(FAKE_SGLANG="sick", FAKE_REPORT=json.dumps(told.with_holes()))
    with pytest.raises(EngineError, match="parameter-not-filled") as caught, fake.served(SOON):
        pass
    assert caught.value.reason is ReasonCode.SCALE_MISSING


def test_a_scale_that_sglang_would_replace_by_one_is_a_finding(fake: Fake) -> None:
    fake.how(FAKE_REPORT=json.dumps(told.with_holes()))
    with fake.served() as endpoint:
        (finding,) = endpoint.deployment.findings
    assert (finding.id, finding.severity) == ("parameter-not-filled", Severity.ERROR)
    assert finding.reason is ReasonCode.SCALE_MISSING


def test_a_tensor_that_sglang_only_warns_of_is_a_finding(fake: Fake) -> None:
    fake.how(FAKE_LOG="[2026-07-11 10:00:01] Parameter model.x.weight not found in params_dict")
    with fake.served() as endpoint:
        (finding,) = endpoint.deployment.findings
    assert (finding.id, finding.severity) == ("parameter-skipped", Severity.ERROR)


def test_a_server_whose_plugin_did_not_run_is_not_believed(fake: Fake) -> None:
    fake.how(FAKE_REPORT="null")
    with fake.served() as endpoint:
        (finding,) = endpoint.deployment.findings
    assert finding.id == "load-report-missing"


def test_a_load_that_could_not_be_followed_is_out_of_the_scope(fake: Fake) -> None:
    report = {**told.REPORT, "is_reconciled": False, "missing": {"load-report": "no FusedMoE"}}
    del report["num_parameters"]
    fake.how(FAKE_REPORT=json.dumps(report))
    with fake.served() as endpoint:
        (gap,) = endpoint.deployment.not_observed
    assert gap.reason is ReasonCode.LOAD_NOT_RECONCILED


def test_backends_that_the_plugin_does_not_name_are_asked_of_the_server(fake: Fake) -> None:
    kernels: dict[str, list[str]] = {"linear": [], "experts": [], "attention": [], "kv_cache": []}
    fake.how(
        FAKE_REPORT=json.dumps({**told.REPORT, "kernels": kernels}),
        FAKE_INFO=json.dumps({"moe_runner_backend": "marlin", "attention_backend": "fa3"}),
    )
    with fake.served() as endpoint:
        found = endpoint.deployment.kernels
    assert (found["experts"], found["attention"]) == ("marlin", "fa3")
    assert "linear" not in found


def test_an_untested_version_is_served_and_said_to_be_one(fake: Fake) -> None:
    fake.how(FAKE_VERSION="0.9.0")
    with fake.served() as endpoint:
        (finding,) = endpoint.deployment.findings
    assert (finding.id, finding.severity) == ("engine-untested", Severity.WARNING)
