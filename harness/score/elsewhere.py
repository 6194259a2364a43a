"""Tasks that another tool asks of the served model and scores: its answers become ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import Sample, TaskSpec, write_samples
from harness.errors import ScoringError
from harness.score.finished import ScoredTask
from harness.score.translate import to_score


class Answered(NamedTuple):
    """What another tool made of one task."""

    samples: tuple[Sample, ...]
    generation: str
    """What shapes the answers, as JSON; equal in both arms or they are not compared."""


Elsewhere = Callable[[Sequence[TaskSpec], Path], Mapping[str, Answered]]
"""Asks tasks and scores them, with a folder of the arm for what it writes; by the suite's names."""


def scored_elsewhere(
    ask: Elsewhere, specs: Sequence[TaskSpec], into: Path
) -> Iterator[tuple[TaskSpec, ScoredTask, tuple[Sample, ...]]]:
    """Let another tool ask; write the samples of each task, and yield its score.

    Raises:
        ScoringError: answers are missing, or it is not known how they ended.
    """
    answered = ask(specs, into)
    for spec in specs:
        samples = answered[spec.name].samples if spec.name in answered else ()
        _check(spec, samples)
        file = into / "samples" / f"{spec.name}.jsonl"
        write_samples(samples, file)
        made = to_score(spec, samples, num_prompts_cut=0, file=file)
        yield spec, ScoredTask(score=made, generation=answered[spec.name].generation), samples


def _check(spec: TaskSpec, samples: Sequence[Sample]) -> None:
    wanted = spec.items * spec.repeats
    if len(samples) != wanted:
        got = f"{len(samples)} of {wanted} answers"
        message = f"task '{spec.name}' came back with {got}. Score it again."
        raise ScoringError(message)
    unknown = sum(sample.finish == "unknown" for sample in samples)
    if unknown:
        message = (
            f"task '{spec.name}': how {unknown} of {wanted} answers ended is not recorded, so that "
            "nobody knows whether they were cut. Score it again."
        )
        raise ScoringError(message)
