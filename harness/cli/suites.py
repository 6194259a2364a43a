"""What each `harness suite` command does, and the text that is printed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.artifacts import Tier
from harness.cli.console import Result
from harness.errors import ExitCode
from harness.gate import TaskPower, joint_probability_of_go, plan_power
from harness.preflight.suite_job import ExaminedSuite, examine_suite
from harness.proposing import NewSuite, propose
from harness.recipe import Request

_ENOUGH = 0.8
"""How often a candidate without loss should get GO."""
_TASK = "{:<24} {:<9} {:>6} {:>8} {:>9} {:>10} {:>9}"
_HEAD = ("task", "tier", "items", "margin", "flip rate", "smallest", "P(GO)")


def check(request: Request, file: Path) -> Result:
    """Say what is wrong with a suite, or what it can decide."""
    examined = examine_suite(request, file, model=request.model)
    mistakes = [str(error) for error in examined.mistakes]
    values = {
        "file": str(file),
        "mistakes": mistakes,
        "reason_codes": sorted({error.reason for error in examined.mistakes}),
        "tasks": [_power_values(power) for power in examined.powers],
        "joint_probability_of_go": examined.joint_probability_of_go,
        "prompts": [one._asdict() for one in examined.lengths],
    }
    if mistakes:
        numbered = [f"  {number}. {line}" for number, line in enumerate(mistakes, start=1)]
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        text = "\n".join([f"{file}: {count}", *numbered])
        return Result(text=text, values=values, exit_code=ExitCode.USAGE)
    return Result(text="\n".join(_sound(examined)), values=values)


def new(order: NewSuite) -> Result:
    """Measure a baseline and write a suite."""
    made = propose(order)
    powers, joint = plan_power(made.suite), joint_probability_of_go(made.suite)
    lines = [
        f"wrote {made.file}; each number's reason stands in it",
        *_table(powers, joint),
        f"the baseline is kept as {made.baseline_key[:12]}: a gate does not measure it again",
        f"next: harness gate CHECKPOINT --baseline {order.request.model} --suite {made.file}",
    ]
    values = {
        "file": str(made.file),
        "baseline_key": made.baseline_key,
        "suite_digest": made.suite.digest,
        "tasks": [
            _power_values(power)
            | {"flips_reason": p.flips_reason, "margin_reason": p.margin_reason}
            for power, p in zip(powers, made.tasks, strict=True)
        ],
        "joint_probability_of_go": joint,
    }
    return Result(text="\n".join(lines), values=values)


def _sound(examined: ExaminedSuite) -> Iterator[str]:
    yield f"{examined.file}: nothing is wrong; what it can decide:"
    yield from _table(examined.powers, examined.joint_probability_of_go or 0.0)
    room = examined.suite.max_model_len if examined.suite else 0
    for one in examined.lengths:
        yield (
            f"{one.task}: the longest of {one.num_requests} requests takes {one.longest} tokens "
            f"with its {'thoughts and ' if one.thinking else ''}answer, of {room} (max_model_len)"
        )


def _table(powers: Sequence[TaskPower], joint: float) -> Iterator[str]:
    """Yield what a suite can decide, a line a task."""
    yield _TASK.format(*_HEAD)
    for power in powers:
        task = power.task
        yield _TASK.format(
            task.name[-24:],
            task.tier,
            task.items,
            f"{power.margin:.2%}",
            "-" if task.relative_margin else f"{task.flip_rate:.2%}",
            f"{power.smallest_margin:.2%}",
            f"{power.probability_of_go:.0%}",
        )
    weak = [power for power in powers if power.task.tier is Tier.CRITICAL]
    if not weak:
        yield "no task is critical, so that nothing is decided: more items, or other tasks"
        return
    yield f"a candidate without loss gets GO on all critical tasks {joint:.0%} of the time"
    worst = min(weak, key=lambda power: power.probability_of_go, default=None)
    if worst is not None and joint < _ENOUGH:
        yield (
            f"advice: that is rare. Give '{worst.task.name}' a margin of at least "
            f"{worst.smallest_margin:.4g}, or more items."
        )


def _power_values(power: TaskPower) -> dict[str, object]:
    return {
        "task": power.task.name,
        "tier": str(power.task.tier),
        "items": power.task.items,
        "margin": power.margin,
        "flip_rate": power.task.flip_rate,
        "smallest_margin": power.smallest_margin,
        "probability_of_go": power.probability_of_go,
    }
