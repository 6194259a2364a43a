"""What each `harness suite` command does, and the text that is printed."""

from collections.abc import Iterator
from pathlib import Path

from harness.artifacts import Tier
from harness.cli.console import Result
from harness.errors import ExitCode
from harness.gate import TaskPower
from harness.preflight.suite_job import ExaminedSuite, examine_suite
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


def _sound(examined: ExaminedSuite) -> Iterator[str]:
    yield f"{examined.file}: nothing is wrong; what it can decide:"
    yield from decides(examined)
    room = examined.suite.max_model_len if examined.suite else 0
    for one in examined.lengths:
        yield (
            f"{one.task}: the longest of {one.num_requests} requests takes {one.longest} tokens "
            f"with its answer, of {room} (max_model_len)"
        )


def decides(examined: ExaminedSuite) -> Iterator[str]:
    """Yield what a suite can decide, a line a task."""
    yield _TASK.format(*_HEAD)
    for power in examined.powers:
        task = power.task
        yield _TASK.format(
            task.name[-24:],
            task.tier,
            task.items,
            f"{power.margin:.2%}",
            f"{task.flip_rate:.2%}",
            f"{power.smallest_margin:.2%}",
            f"{power.probability_of_go:.0%}",
        )
    joint = examined.joint_probability_of_go or 0.0
    yield f"a candidate without loss gets GO on all critical tasks {joint:.0%} of the time"
    if joint < _ENOUGH:
        weak = [p for p in examined.powers if p.task.tier is Tier.CRITICAL]
        worst = min(weak, key=lambda power: power.probability_of_go, default=None)
        if worst is not None:
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
