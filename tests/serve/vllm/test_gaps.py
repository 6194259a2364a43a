"""A server that is ready and did not show everything: what is missing is named, and no fault."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import Decision, Deployment, MissingEvidence, Verdict
from harness.engines import Demands
from harness.errors import ReasonCode
from harness.gate import judge
from harness.serve.vllm.observe import Observed, observe
from tests.gate.arms import arms_of, quantized
from tests.nouns import suite_of

from . import fake_vllm
from .conftest import Fake

NVFP4 = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}))
ALL = ("weights:nvfp4", "inputs:nvfp4")
KERNELS: dict[str, list[str]] = fake_vllm.REPORT["kernels"]  # type: ignore[assignment]  # a report's
COUNTS = frozenset(fake_vllm.REPORT) - {"device", "kernels", "kv_scales"}
LACKING = {
    "load-report": "DefaultModelLoader.load_weights has no parameter 'model'",
    "kernel-names": "there is no vllm.RoutedExperts",
    "cpu-experts-fp8": "there is no select_fp8_moe_backend",
}


def not_followed(**changes: object) -> dict[str, object]:
    """Return the report of a worker that could not compare."""
    kept = {name: value for name, value in fake_vllm.REPORT.items() if name not in COUNTS}
    return {**kept, "is_reconciled": False, "missing": LACKING, **changes}


def observed(
    folder: Path, *reports: dict[str, object], demands: Demands = NVFP4, log: str = ""
) -> Observed:
    for rank, report in enumerate(reports):
        text = json.dumps(report)
        (folder / f"load_report.rank{rank}.json").write_text(text, encoding="utf-8")
    return observe(demands, records=folder, log=log)


def test_a_worker_that_shows_everything_leaves_no_gap(tmp_path: Path) -> None:
    assert observed(tmp_path, fake_vllm.REPORT).not_observed == ()
    known = {**fake_vllm.REPORT, "is_reconciled": True, "missing": {"cpu-experts-fp8": "gone"}}
    assert observed(tmp_path, known).not_observed == ()


def test_a_load_that_could_not_be_followed_is_a_gap_with_its_reason(tmp_path: Path) -> None:
    found = observed(tmp_path, fake_vllm.REPORT, not_followed())
    (gap,) = found.not_observed
    assert gap.reason is ReasonCode.LOAD_NOT_RECONCILED
    assert "(load-report: DefaultModelLoader.load_weights has no parameter 'model')" in gap.message
    assert (found.findings, found.loaded, gap.parts) == ((), None, ())


def test_kernels_that_nobody_names_are_a_gap_and_no_hidden_part(tmp_path: Path) -> None:
    found = observed(tmp_path, {**fake_vllm.REPORT, "kernels": {}, "missing": LACKING})
    (gap,) = found.not_observed
    assert (gap.reason, gap.parts) == (ReasonCode.KERNELS_UNKNOWN, ALL)
    assert "linear and experts (kernel-names: there is no vllm.RoutedExperts)" in gap.message
    assert found.exercised == ()


def test_what_the_log_names_is_known_and_what_only_the_log_names_is_a_gap(tmp_path: Path) -> None:
    report = {**fake_vllm.REPORT, "kernels": {**KERNELS, "experts": []}}
    (gap,) = observed(tmp_path, report, log="Using 'MARLIN' NvFp4 MoE backend").not_observed
    assert (gap.reason, gap.parts) == (ReasonCode.KERNELS_UNKNOWN, ())


def test_a_kernel_of_an_unknown_name_is_not_known_to_round_inputs(tmp_path: Path) -> None:
    report = {**fake_vllm.REPORT, "kernels": {**KERNELS, "linear": ["AKernelOfNextYear"]}}
    found = observed(tmp_path, report)
    (gap,) = found.not_observed
    assert "whether AKernelOfNextYear rounds inputs" in gap.message
    assert (gap.parts, found.exercised) == (("inputs:nvfp4",), ("weights:nvfp4",))


def test_an_unquantized_model_has_no_kernels_to_be_asked_for(tmp_path: Path) -> None:
    report = {**fake_vllm.REPORT, "kernels": {"linear": ["NextYearsLinear"]}}
    assert observed(tmp_path, report, demands=Demands()).not_observed == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kv_scales": "unknown"}, ReasonCode.LOAD_NOT_RECONCILED),
        ({"kernels": {**KERNELS, "kv_cache": []}}, ReasonCode.KERNELS_UNKNOWN),
    ],
)
def test_the_cache_of_keys_and_values_is_looked_at_too(
    changes: dict[str, object], reason: ReasonCode, tmp_path: Path
) -> None:
    calibrated = Demands(linears=frozenset({"NVFP4"}), kv_fp8=True, kv_calibrated=True)
    kernels = {**KERNELS, "kv_cache": ["fp8_e4m3"]}
    report = {**fake_vllm.REPORT, "kernels": kernels, "kv_scales": "calibrated"}
    assert observed(tmp_path, report, demands=calibrated).not_observed == ()
    (gap,) = observed(tmp_path, {**report, **changes}, demands=calibrated).not_observed
    assert gap.reason is reason


def test_no_report_at_all_is_an_error_and_no_gap(tmp_path: Path) -> None:
    found = observed(tmp_path)
    assert [finding.id for finding in found.findings] == ["load-report-missing"]
    assert found.not_observed == ()


@pytest.mark.parametrize("missing", [None, 7, [], {"load-report": 7}])
def test_reasons_of_another_shape_are_left_out(missing: object, tmp_path: Path) -> None:
    (gap,) = observed(tmp_path, not_followed(missing=missing)).not_observed
    assert gap.reason is ReasonCode.LOAD_NOT_RECONCILED


def deployed(fake: Fake, version: str, report: dict[str, object]) -> Deployment:
    fake.how(FAKE_VERSION=version, FAKE_REPORT=json.dumps(report))
    with fake.served() as endpoint:
        return endpoint.deployment


def verdict_on(found: Deployment, policy: MissingEvidence) -> Verdict:
    """Judge a quantized candidate without loss that this server showed so much of."""
    baseline, candidate = arms_of(lost=0, won=0)
    shown = quantized(findings=found.findings, not_observed=found.not_observed)
    card = replace(candidate.scorecard, deployment=shown)
    arm = replace(candidate, scorecard=card)
    return judge(suite_of(), baseline, arm, verified=True, missing_evidence=policy)


@pytest.mark.parametrize("version", ["0.40.0", "0.33.1.dev12+gabcdef012"])
def test_an_unknown_version_that_shows_everything_may_end_go(fake: Fake, version: str) -> None:
    found = deployed(fake, version, fake_vllm.REPORT)
    assert found.version.startswith(version)
    assert (found.not_observed, [one.id for one in found.findings]) == ((), ["engine-untested"])
    verdict = verdict_on(found, MissingEvidence.INCONCLUSIVE)
    assert verdict.decision is Decision.GO
    assert any("engine-untested: harness was not tested with vLLM" in s for s in verdict.scope)


@pytest.mark.parametrize(
    ("policy", "decision"),
    [
        (MissingEvidence.INCONCLUSIVE, Decision.INCONCLUSIVE),
        (MissingEvidence.GO, Decision.GO),
    ],
)
def test_a_version_with_other_private_names_goes_on_and_the_verdict_names_what_is_missing(
    fake: Fake, policy: MissingEvidence, decision: Decision
) -> None:
    verdict = verdict_on(deployed(fake, "0.40.0", not_followed()), policy)
    assert verdict.decision is decision
    assert ReasonCode.LOAD_NOT_RECONCILED in verdict.reason_codes
    assert "load-not-reconciled" in verdict.summary


def test_scales_of_experts_that_could_not_be_looked_at_are_a_gap(tmp_path: Path) -> None:
    missing = {"expert-scales": "LookupError: Method has no moe_quant_config"}
    (gap,) = observed(tmp_path, {**fake_vllm.REPORT, "missing": missing}).not_observed
    assert gap.reason == ReasonCode.LOAD_NOT_RECONCILED
    assert "has no moe_quant_config" in gap.message


def test_a_model_without_quantized_experts_needs_no_scales_of_experts(tmp_path: Path) -> None:
    report = {**fake_vllm.REPORT, "missing": {"expert-scales": "there is no RoutedExperts"}}
    demands = Demands(linears=frozenset({"NVFP4"}), experts=frozenset())
    assert observed(tmp_path, report, demands=demands).not_observed == ()
