"""Tasks that are answered, as they lie in a folder of scores, of a run that may be at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from harness.artifacts import (
    Endpoint,
    Pace,
    Sample,
    Scorecard,
    Suite,
    TaskScore,
    TaskSpec,
    Tool,
    digest_of,
    load,
    made_from,
    read_samples,
)
from harness.score.arm import SCORECARD_FILE, sha256_of
from harness.score.reference_lm import Answering

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


def _how(served: Answering | Endpoint) -> list[object]:
    """Return what decides the answers, beside the suite."""
    how = served.deployment
    computed = [how.engine, how.version, how.arguments, how.device, how.dtype, how.kernels]
    return [how.checkpoint_digest, *computed, how.tensor_parallel_size, version("lm_eval")]


def key_of(suite: Suite, spec: TaskSpec, served: Answering | Endpoint) -> str:
    """Return the digest of all that decides a task's answers."""
    nel = suite.nel if spec.tool is Tool.NEL else None
    theirs = [] if nel is None else [nel.version, nel.digest]
    return digest_of(suite.digest, spec.name, _how(served), *theirs)


def stays(served: Answering | Endpoint) -> bool:
    """Return whether the digests tell the model: behind an address it may be exchanged."""
    return not served.deployment.address


def done_before(into: Path, keys: Mapping[str, str]) -> dict[str, ScoredTask]:
    """Return the tasks of an earlier run in a folder whose keys still fit."""
    found = {name: find_task(into, name, key) for name, key in keys.items()}
    return {name: one for name, one in found.items() if one is not None}
