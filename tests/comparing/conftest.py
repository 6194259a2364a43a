"""Run directories as runs leave them, written by the code that writes real ones, without a model.

A checkpoint of three tensors, an arm of a few answers each; every test changes one thing in one of
two such runs.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness import evidence
from harness.artifacts import (
    Arm,
    CalibrationSpec,
    Check,
    Checkpoint,
    Deployment,
    Failure,
    IntegrityReport,
    Recipe,
    Rule,
    RunSurroundings,
    Sample,
    Severity,
    Surroundings,
    save,
    write_samples,
)
from harness.errors import ReasonCode
from harness.gate import judge
from harness.installed import ENVIRONMENT_FILE
from harness.models import digest_folder
from harness.rundir import RunDirectory, open_run
from harness.runs import FAILURE_FILE
from harness.stages import BASELINE, CANDIDATE, EXPORT, JUDGE, VERIFY
from tests import nouns

SPEC = CalibrationSpec(data="default", size=8, seq=16, seed=1, batch_tokens=None, layerwise=False)
RULES = (
    Rule(quantizer="*weight_quantizer", format="nvfp4"),
    Rule(quantizer="*input_quantizer", format="nvfp4"),
    Rule(quantizer="*lm_head*", format="none"),
)
WEIGHT, SCALE, NORM = "model.layers.0.up_proj.weight", "model.layers.0.up_proj.input_scale", "norm"
TENSORS = {
    WEIGHT: torch.arange(8, dtype=torch.uint8).reshape(2, 4),
    SCALE: torch.tensor(0.5),
    NORM: torch.ones(4, dtype=torch.bfloat16),
}
NUM_ITEMS = 40


@dataclass(kw_only=True)
class Made:
    """What a fabricated run is like."""

    recipe: Recipe = field(
        default_factory=lambda: nouns.recipe_of(
            SPEC,
            engine=nouns.engine_spec("vllm"),
            rules=RULES,
            suite=nouns.suite_of(nouns.task_spec(items=NUM_ITEMS, margin=0.3)),
        )
    )
    tensors: dict[str, Tensor] = field(default_factory=lambda: dict(TENSORS))
    plan: str = "plan of three layers"
    deployment: Deployment = field(
        default_factory=lambda: nouns.deployment(
            engine="vllm",
            version="0.32.0",
            device="NVIDIA H200 (sm_90)",
            arguments=("--max-model-len", "256", "--port", "8000"),
            kernels={"linear": "Marlin"},
        )
    )
    wrong: frozenset[int] = frozenset()
    """Items that the candidate answers wrongly."""
    num_items: int = NUM_ITEMS
    asks: str = "question"
    failed_check: str = ""
    failure: Failure | None = None
    surroundings: tuple[Surroundings, ...] = ()


Make = Callable[[str, Made], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return what writes a run and returns its directory."""

    def write(name: str, made: Made) -> Path:
        path = tmp_path / name
        with open_run(path, made.recipe) as run:
            _write(run, made)
        return path

    return write


def _write(run: RunDirectory, made: Made) -> None:
    if made.surroundings:
        save(RunSurroundings(seen=made.surroundings), run.path / ENVIRONMENT_FILE)
    digest = _export(run, made)
    checks = tuple(_check(id_, id_ != made.failed_check) for id_ in ("shards", "scales"))
    report = IntegrityReport(
        checkpoint="x", checkpoint_digest=digest, checks=checks, input_scales={}
    )
    run.keep(VERIFY, report, {"checkpoint": digest})
    if made.failure is not None:
        save(made.failure, run.path / FAILURE_FILE)
        return
    served = replace(made.deployment, checkpoint_digest=digest)
    candidate = _arm(run.path, made, served, _samples(made), "candidate")
    run.keep(CANDIDATE, candidate.scorecard, {"checkpoint": digest})
    unquantized = replace(made.deployment, checkpoint_digest="m" * 64, model="/models/x")
    right = _samples(replace(made, wrong=frozenset()))
    baseline = _arm(run.path, made, unquantized, right, "baseline")
    run.keep(BASELINE, baseline.scorecard, {})
    verdict = judge(made.recipe.suite, baseline, candidate, verified=True)
    run.keep(JUDGE, verdict, evidence.ingredients(run, made.recipe, "m" * 64))


def _export(run: RunDirectory, made: Made) -> str:
    folder = run.path / "checkpoint"
    folder.mkdir()
    save_file(made.tensors, folder / "model.safetensors")
    digest = digest_folder(folder)
    checkpoint = Checkpoint(
        directory=str(folder),
        scheme="NVFP4",
        kv_cache="none",
        num_bytes=1,
        num_tensors=len(made.tensors),
        num_quantized=1,
        bits_per_weight=4.5,
        sha256={},
        digest=digest,
    )
    run.keep(EXPORT, checkpoint, {"model": "m" * 64, "plan": made.plan, "versions": "v" * 64})
    return digest


def _check(name: str, passed: bool) -> Check:  # noqa: FBT001  a test's own
    return Check(id=name, passed=passed, severity=Severity.ERROR, message="looked at")


def _samples(made: Made) -> list[Sample]:
    return [
        replace(
            nouns.sample("add", i, 0.0 if i in made.wrong else 1.0),
            prompt_hash=f"{made.asks} {i}",
        )
        for i in range(made.num_items)
    ]


def _arm(run: Path, made: Made, served: Deployment, samples: Sequence[Sample], arm: str) -> Arm:
    folder = run if arm == "candidate" else run / "baseline"
    file = folder / "samples" / "add.jsonl"
    file.parent.mkdir(parents=True)
    write_samples(samples, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    score = nouns.task_score("add", samples, samples_sha256=sha256)
    card = nouns.scorecard(arm, served, score, suite_digest=made.recipe.suite.digest)
    return Arm(scorecard=card, samples={"add": tuple(samples)})


def failure(stage: str = "serve") -> Failure:
    return Failure(
        stage=stage,
        message="the server died",
        reason_code=ReasonCode.ENGINE_FAILED,
        retryable=True,
        exit_code=3,
    )
