"""Tasks that are answered, as they lie in a folder of scores, of a run that may be at work."""

from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import Pace, Sample, Scorecard, TaskScore, load, made_from, read_samples
from harness.score.arm import SCORECARD_FILE, sha256_of

ASKED = "questions and deployment"
"""What a finished task was made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredTask:
    """A finished task, as it lies in tasks/<task>.json."""

    score: TaskScore
    generation: str
    pace: Pace | None = None
    looks: tuple[int, ...] = ()
    """After how many items its answers were looked at before all were there."""


def find_task(into: Path, task: str, key: str) -> ScoredTask | None:
    """Return a task that was made from the same, with the samples that it had; else None."""
    path = into / "tasks" / f"{task}.json"
    if made_from(path) != {ASKED: key}:
        return None
    found = load(ScoredTask, path)
    samples = into / found.score.samples
    if not samples.is_file() or sha256_of(samples) != found.score.samples_sha256:
        return None
    return found


def finished_samples(folder: Path, task: str) -> tuple[Sample, ...]:
    """Return the answers to a task that lie in a folder, of a run that may not be finished.

    Nothing where it is not answered yet. They are looked at and not judged: nothing is checked but
    that they are what was scored.
    """
    path = folder / "tasks" / f"{task}.json"
    if path.is_file():
        score: TaskScore | None = load(ScoredTask, path).score
    elif (folder / SCORECARD_FILE).is_file():
        card = load(Scorecard, folder / SCORECARD_FILE)
        score = next((one for one in card.tasks if one.task == task), None)
    else:
        score = None
    if score is None:
        return ()
    samples = folder / score.samples
    if not samples.is_file() or sha256_of(samples) != score.samples_sha256:
        return ()
    return read_samples(samples)
