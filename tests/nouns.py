"""Nouns as small as they can be, for tests that look at one field of them; each takes changes."""
# mypy: disable-error-code="arg-type"

from collections.abc import Sequence
from dataclasses import replace

from harness.artifacts import (
    CalibrationSpec,
    Deployment,
    EngineSpec,
    KvFormat,
    Recipe,
    Sample,
    Scorecard,
    Suite,
    TaskScore,
    TaskSpec,
    Tier,
)


def engine_spec(name: str = "reference", /, **changes: object) -> EngineSpec:
    dtype = "float32" if name == "reference" else "bfloat16"
    engine = EngineSpec(name=name, numerics="declared", device="cpu", dtype=dtype, max_model_len=64)
    return replace(engine, **changes)


def task_spec(name: str = "add", /, **changes: object) -> TaskSpec:
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
    return replace(task, **changes)


def suite_of(*tasks: TaskSpec, **changes: object) -> Suite:
    suite = Suite(
        name="tiny",
        tasks=tasks or (task_spec(),),
        max_model_len=256,
        apply_chat_template=False,
        seed=1,
        batch_size=8,
        confidence=0.95,
        max_truncated=0.02,
        digest="d" * 64,
    )
    return replace(suite, **changes)


def recipe_of(spec: CalibrationSpec, **changes: object) -> Recipe:
    """Return one that quantizes nothing and asks nothing."""
    recipe = Recipe(
        name="nvfp4",
        model="canary",
        revision=None,
        rules=(),
        exclude=(),
        kv_cache=KvFormat.NONE,
        calibration=spec,
        engine=engine_spec(max_model_len=None),
        suite=replace(suite_of(), name="none", tasks=()),
        device="cpu",
        skip_verify=False,
    )
    return replace(recipe, **changes)


def deployment(**changes: object) -> Deployment:
    """Return that of an unquantized model."""
    made = Deployment(
        engine="reference",
        version="0.1.0",
        model="/models/x",
        checkpoint_digest="c" * 64,
        device="cpu",
        dtype="float32",
        arguments=(),
        kernels={},
        exercised=(),
        declared=(),
        log=None,
    )
    return replace(made, **changes)


def sample(task: str, index: int, value: float, *, finish: str = "stop") -> Sample:
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


def task_score(task: str, samples: Sequence[Sample], **changes: object) -> TaskScore:
    score = TaskScore(
        task=task,
        metric="exact_match",
        value=sum(s.value for s in samples) / max(len(samples), 1),
        stderr=0.01,
        num_items=len(samples),
        num_errors=sum(s.finish == "error" for s in samples),
        num_empty=0,
        num_truncated=sum(s.is_cut for s in samples),
        num_prompts_cut=0,
        samples=f"samples/{task}.jsonl",
        samples_sha256="0" * 64,
    )
    return replace(score, **changes)


def scorecard(arm: str, served: Deployment, *scores: TaskScore, **changes: object) -> Scorecard:
    made = Scorecard(
        arm=arm,
        suite="tiny",
        suite_digest="d" * 64,
        deployment=served,
        tasks=scores,
        lm_eval_version="0.4.13",
        generation={score.task: '{"max_gen_toks": 16}' for score in scores},
    )
    return replace(made, **changes)
