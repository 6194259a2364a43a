"""Records of runs as far as they got, from nothing to everything."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.artifacts import (
    CalibrationSpec,
    CalibrationStats,
    Check,
    Checkpoint,
    Decision,
    Excluded,
    ExpertCoverage,
    Failure,
    Flip,
    IntegrityReport,
    Linear,
    PlannedLinear,
    QuantPlan,
    Recipe,
    Rule,
    RunRecord,
    Severity,
    Slice,
    TaskVerdict,
    Tier,
    Verdict,
)
from harness.errors import ExitCode, ReasonCode
from tests.nouns import recipe_of, suite_of, task_spec

LAYERS = "model.language_model.layers"


def _recipe() -> Recipe:
    critical = (("reverse", 0.03), ("two_digit_addition", 0.04))
    tasks = (
        *(task_spec(name, items=400, margin=m, flip_rate=0.04) for name, m in critical),
        *(
            task_spec(name, items=400, margin=0.02, flip_rate=0.04, tier=Tier.ADVISORY)
            for name in ("long_recall", "never_ran")
        ),
    )
    spec = CalibrationSpec(
        data="canary", size=512, seq=512, seed=1, batch_tokens=8192, layerwise=False
    )
    suite = suite_of(*tasks, name="canary", max_model_len=512, digest="ab" * 32)
    rules = (Rule(quantizer="*weight_quantizer", format="nvfp4"),)
    return recipe_of(spec, rules=rules, exclude=("*lm_head*",), suite=suite)


def _task(name: str, **changes: object) -> TaskVerdict:
    task = TaskVerdict(
        task=name,
        tier=Tier.CRITICAL,
        baseline=0.985,
        candidate=0.9775,
        num_items=400,
        num_lost=5,
        num_won=2,
        difference=-0.0075,
        low=-0.0197,
        high=0.0034,
        margin=0.03,
        decision=Decision.GO,
        reason=ReasonCode.NON_INFERIOR,
        message="lost 5 and won 2 of 400 items",
    )
    return replace(task, **changes)  # type: ignore[arg-type]  # the fields vary by test


def _flip(number: int, *, lost: bool) -> Flip:
    return Flip(
        task="two_digit_addition",
        doc_id=number,
        prompt=f"Q: what is {number} + 44?\nA:",
        target=str(number + 44),
        baseline=str(number + 44) if lost else "<script>alert('x')</script>",
        candidate="huiesT. Teteveien.\x07\x00 | A: siiibe" if lost else str(number + 44),
        lost=lost,
    )


def _verdict() -> Verdict:
    return Verdict(
        decision=Decision.GO,
        reason_codes=(ReasonCode.NON_INFERIOR,),
        summary="GO: all 2 critical tasks are within the margin; the closest is reverse, from "
        "98.5% to 97.8% on 400 items, a difference of at least -1.97 where -3.00 is allowed.",
        model="canary",
        scheme="NVFP4",
        suite="canary",
        tasks=(
            _task(
                "long_recall",
                tier=Tier.ADVISORY,
                baseline=0.86,
                candidate=0.805,
                num_lost=31,
                num_won=9,
                difference=-0.055,
                low=-0.0812,
                high=-0.0291,
                margin=0.02,
                decision=Decision.NO_GO,
                reason=ReasonCode.TASK_INFERIOR,
                message="lost 31 and won 9 of 400 items: the difference lies between -8.12 and "
                "-2.91 points, where -2.00 is allowed",
            ),
            _task("reverse"),
            _task(
                "two_digit_addition", low=-0.0226, high=0.0103, num_lost=8, num_won=6, margin=0.04
            ),
        ),
        flips=(*(_flip(n, lost=True) for n in range(3)), _flip(77, lost=False)),
        flip_rate=0.0525,
        pooled_difference=-0.0225,
        scope=(
            "suite canary: 2 critical and 2 advisory tasks, each bound at 95% confidence",
            "engine reference 0.1.0 on cpu, float32",
            "arithmetic computed: weights:nvfp4, inputs:nvfp4",
        ),
    )


def _plan() -> QuantPlan:
    quantized = tuple(
        PlannedLinear(
            linear=Linear(
                name=f"{LAYERS}.{layer}.mlp.experts.{expert}.down_proj",
                source=Slice(tensor="t"),
                parameter=Slice(tensor="t"),
                shape=(32, 32),
                weight_quantizer="w",
                input_quantizer="i",
                group="g",
                experts=f"{LAYERS}.{layer}.mlp.experts",
                expert=expert,
            ),
            weight_format="nvfp4",
            input_format="nvfp4",
            rule="*",
        )
        for layer in range(4)
        for expert in range(16)
    )
    return QuantPlan(
        scheme="NVFP4",
        kv_cache="none",
        quantized=quantized,
        excluded=(Excluded(module="lm_head", rule="*lm_head*"),),
        attentions=(),
        digest="cd" * 32,
    )


def _stats() -> CalibrationStats:
    coverage = tuple(
        ExpertCoverage(
            experts=f"{LAYERS}.{layer}.mlp.experts",
            projection=projection,
            calls=tuple(40 for _ in range(16)),
            tokens=tuple(0 if (layer, e) == (2, 5) else 90 + 37 * layer * e for e in range(16)),
        )
        for layer in range(4)
        for projection in ("gate_up_proj", "down_proj")
    )
    return CalibrationStats(
        weight_amax={},
        input_amax={f"{LAYERS}.1.mlp.experts.down_proj_input_quantizer": 3.5},
        coverage=coverage,
        num_samples=512,
        num_tokens=180_000,
    )


def _integrity() -> IntegrityReport:
    good = Check(
        id="expert-input-scales-complete",
        passed=True,
        severity=Severity.ERROR,
        message="192 of 192 expert input scales are there",
    )
    warning = Check(
        id="ignore-patterns-used",
        passed=False,
        severity=Severity.WARNING,
        message="1 of 9 entries of the ignore list hit nothing (first: mtp*)",
        num_faulty=1,
        examples=("mtp*",),
    )
    kinds = ("experts.down_proj", "experts.gate_proj", "shared_expert.up_proj", "self_attn.q_proj")
    scales = {
        f"{layer}.{kind}": (0.001 * (1 + number) * (layer + 1), 0.002 * (1 + number) * (layer + 1))
        for layer in range(4)
        for number, kind in enumerate(kinds)
    }
    return IntegrityReport(
        checkpoint="runs/x/checkpoint",
        checkpoint_digest="c" * 64,
        checks=(good, warning),
        input_scales=scales,
    )


def _checkpoint() -> Checkpoint:
    return Checkpoint(
        directory="runs/canary-nvfp4-1a2b3c4d/checkpoint",
        scheme="NVFP4",
        kv_cache="none",
        num_bytes=9_912_112,
        num_tensors=1014,
        num_quantized=211,
        bits_per_weight=4.53,
        sha256={"model.safetensors": "e" * 64},
        digest="f" * 64,
    )


def empty_record() -> RunRecord:
    return RunRecord(recipe=_recipe(), versions={"harness": "0.1.0"}, stage_seconds={})


def full_record() -> RunRecord:
    return replace(
        empty_record(),
        versions={"harness": "0.1.0", "torch": "2.13.0", "transformers": "5.19.0"},
        plan=_plan(),
        stats=_stats(),
        checkpoint=_checkpoint(),
        integrity=_integrity(),
        verdict=_verdict(),
        stage_seconds={"calibrate": 12.5, "export": 3.2, "verify": 0.4, "score candidate": 71.0},
        serve_command="vllm serve runs/canary-nvfp4-1a2b3c4d/checkpoint",
    )


def failed_record() -> RunRecord:
    failure = Failure(
        stage="export",
        message="no space left while writing 'x' & <y>: the checkpoint needs 12 bytes",
        reason_code=ReasonCode.DISK_FULL,
        retryable=True,
        exit_code=ExitCode.STAGE_FAILED,
    )
    return replace(empty_record(), plan=_plan(), stats=_stats(), failure=failure)


@pytest.fixture
def empty() -> RunRecord:
    return empty_record()


@pytest.fixture
def full() -> RunRecord:
    return full_record()


@pytest.fixture
def failed() -> RunRecord:
    return failed_record()


@pytest.fixture
def task() -> Callable[..., TaskVerdict]:
    return _task
