"""Small suites and arms with a known number of lost and won items."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    Deployment,
    Sample,
    Scorecard,
    Suite,
    TaskScore,
    TaskSpec,
    Tier,
)


def make_task(name: str = "add", **changes: object) -> TaskSpec:
    task = TaskSpec(
        name=name,
        tier=Tier.CRITICAL,
        metric="exact_match",
        filter="none",
        items=300,
        margin=0.05,
        flip_rate=0.05,
        num_fewshot=0,
        chance=0.0,
    )
    return replace(task, **changes)  # type: ignore[arg-type]  # the fields vary by test


def make_suite(*tasks: TaskSpec, **changes: object) -> Suite:
    suite = Suite(
        name="tiny",
        tasks=tasks or (make_task(),),
        max_model_len=256,
        apply_chat_template=False,
        seed=1,
        batch_size=8,
        confidence=0.95,
        max_truncated=0.02,
        digest="d" * 64,
    )
    return replace(suite, **changes)  # type: ignore[arg-type]  # the fields vary by test


def make_deployment(**changes: object) -> Deployment:
    deployment = Deployment(
        engine="reference",
        version="0.1.0",
        model="/runs/x/checkpoint",
        checkpoint_digest="c" * 64,
        device="cpu",
        dtype="float32",
        arguments=(),
        kernels={"linear": "emulated-nvfp4"},
        exercised=("weights:nvfp4", "inputs:nvfp4"),
        declared=("weights:nvfp4", "inputs:nvfp4"),
        log=None,
    )
    return replace(deployment, **changes)  # type: ignore[arg-type]  # the fields vary by test


def make_sample(task: str, index: int, value: float, *, finish: str = "stop") -> Sample:
    return Sample(
        doc_id=index,
        doc_hash=f"doc-{task}-{index}",
        prompt_hash=f"prompt-{task}-{index}",
        target_hash=f"target-{task}-{index}",
        value=value,
        prompt=f"{task} question {index}",
        target="right",
        answer="right" if value else "wrong",
        finish=finish,
    )


def make_score(task: str, samples: tuple[Sample, ...], **changes: object) -> TaskScore:
    score = TaskScore(
        task=task,
        metric="exact_match",
        value=sum(s.value for s in samples) / max(len(samples), 1),
        stderr=0.01,
        num_items=len(samples),
        num_errors=sum(s.finish == "error" for s in samples),
        num_empty=0,
        num_truncated=sum(s.finish == "length" for s in samples),
        num_prompts_cut=0,
        samples=f"samples/{task}.jsonl",
        samples_sha256="0" * 64,
    )
    return replace(score, **changes)  # type: ignore[arg-type]  # the fields vary by test


UNQUANTIZED: dict[str, object] = {
    "model": "/models/x",
    "checkpoint_digest": "b" * 64,
    "exercised": (),
    "declared": (),
}


def make_arm(name: str, samples: dict[str, tuple[Sample, ...]], **changes: object) -> Arm:
    scorecard = Scorecard(
        arm=name,
        suite="tiny",
        suite_digest="d" * 64,
        deployment=make_deployment(**(UNQUANTIZED if name == "baseline" else {})),
        tasks=tuple(make_score(task, values) for task, values in samples.items()),
        lm_eval_version="0.4.13",
        generation=dict.fromkeys(samples, '{"max_gen_toks": 16}'),
    )
    return Arm(scorecard=replace(scorecard, **changes), samples=samples)  # type: ignore[arg-type]


def answers(task: str, values: list[float], *, finish: str = "stop") -> tuple[Sample, ...]:
    return tuple(make_sample(task, i, v, finish=finish) for i, v in enumerate(values))


def arms_of(*, lost: int, won: int, items: int = 300, task: str = "add") -> tuple[Arm, Arm]:
    """Both arms of one task: `lost` items first, then `won`, then items that both answer."""
    right = items - lost - won
    baseline = [1.0] * lost + [0.0] * won + [1.0] * right
    candidate = [0.0] * lost + [1.0] * won + [1.0] * right
    return (
        make_arm("baseline", {task: answers(task, baseline)}),
        make_arm("candidate", {task: answers(task, candidate)}),
    )


# Tests cannot import a conftest, so the makers are handed to them as fixtures.


@pytest.fixture
def task() -> Callable[..., TaskSpec]:
    return make_task


@pytest.fixture
def suite() -> Callable[..., Suite]:
    return make_suite


@pytest.fixture
def deployment() -> Callable[..., Deployment]:
    return make_deployment


@pytest.fixture
def samples() -> Callable[..., tuple[Sample, ...]]:
    return answers


@pytest.fixture
def score_of() -> Callable[..., TaskScore]:
    return make_score


@pytest.fixture
def arm() -> Callable[..., Arm]:
    return make_arm


@pytest.fixture
def arms() -> Callable[..., tuple[Arm, Arm]]:
    return arms_of
