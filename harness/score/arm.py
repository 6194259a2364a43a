"""Read a scored arm back: the scorecard and, checked against it, the samples behind it."""

import hashlib
from pathlib import Path

from harness.artifacts import Arm, Scorecard, load, read_samples
from harness.errors import ReasonCode, RunDirectoryError

SCORECARD_FILE = "scorecard.json"


def read_arm(directory: Path) -> Arm:
    """Read the scorecard in `directory` and the samples that it names.

    Raises:
        RunDirectoryError: a file is missing, malformed, or not the one that was scored.
    """
    scorecard = load(Scorecard, directory / SCORECARD_FILE)
    for score in scorecard.tasks:
        path = directory / score.samples
        if not path.is_file() or sha256_of(path) != score.samples_sha256:
            message = (
                f"'{path}' is not the file that was scored. "
                f"Delete '{directory / SCORECARD_FILE}' and score again."
            )
            raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    samples = {score.task: read_samples(directory / score.samples) for score in scorecard.tasks}
    return Arm(scorecard=scorecard, samples=samples)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
