"""Small suites and arms with a known number of lost and won items."""

from dataclasses import replace

from harness.artifacts import Arm, Deployment, Sample
from tests.nouns import deployment, sample, scorecard, task_score


def quantized(**changes: object) -> Deployment:
    computed = ("weights:nvfp4", "inputs:nvfp4")
    made = deployment(
        model="/runs/x/checkpoint",
        kernels={"linear": "emulated-nvfp4"},
        exercised=computed,
        declared=computed,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


def make_arm(name: str, samples: dict[str, tuple[Sample, ...]], **changes: object) -> Arm:
    served = deployment(checkpoint_digest="b" * 64) if name == "baseline" else quantized()
    scores = (task_score(task, values) for task, values in samples.items())
    return Arm(scorecard=scorecard(name, served, *scores, **changes), samples=samples)


def answers(task: str, values: list[float], *, finish: str = "stop") -> tuple[Sample, ...]:
    return tuple(sample(task, i, v, finish=finish) for i, v in enumerate(values))


def arms_of(*, lost: int, won: int, items: int = 300, task: str = "add") -> tuple[Arm, Arm]:
    """Both arms of one task: `lost` items first, then `won`, then items that both answer."""
    right = items - lost - won
    baseline = [1.0] * lost + [0.0] * won + [1.0] * right
    candidate = [0.0] * lost + [1.0] * won + [1.0] * right
    return (
        make_arm("baseline", {task: answers(task, baseline)}),
        make_arm("candidate", {task: answers(task, candidate)}),
    )
