"""Read a scored arm back: the scorecard and, checked against it, the samples behind it."""

import hashlib
from pathlib import Path

from harness.artifacts import Arm, Scorecard, load, read_samples
from harness.errors import ReasonCode, RunDirectoryError

SCORECARD_FILE = "scorecard.json"
_OF_LM_EVAL = ("results*.json", "*/results*.json", "samples_*.jsonl", "*/samples_*.jsonl")
_ADVICE = "Score both arms with `harness score`, and name the folders that it wrote."


def read_arm(directory: Path) -> Arm:
    """Read the scorecard in `directory` and the samples that it names.

    Raises:
        RunDirectoryError: a file is missing, malformed, or not the one that was scored.
    """
    _refuse_other_folder(directory)
    scorecard = load(Scorecard, directory / SCORECARD_FILE, advice=_ADVICE)
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


def _refuse_other_folder(directory: Path) -> None:
    """Say what a folder holds in place of a scorecard.

    Raises:
        RunDirectoryError: it holds none.
    """
    if (directory / SCORECARD_FILE).exists():
        return
    found = f"'{directory}' holds no {SCORECARD_FILE} of harness"
    if not directory.is_dir():
        found = f"'{directory}' is no folder"
    elif any(any(directory.glob(pattern)) for pattern in _OF_LM_EVAL):
        found = (
            f"'{directory}' holds results of lm-eval, and no {SCORECARD_FILE} of `harness score`, "
            "so that its answers cannot be paired"
        )
    elif arms := sorted(directory.glob(f"*/{SCORECARD_FILE}")):
        found += f", but '{arms[0].parent}' does"
    message = f"{found}. {_ADVICE}"
    raise RunDirectoryError(message)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
