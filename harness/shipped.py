"""Where the files lie that ship with harness: recipes, suites, tasks and the canary.

In a source tree they are the folders `recipes/` and `evals/` beside the package; in an installed
wheel they are `harness/files/...`.
"""

from pathlib import Path

CANARY = "canary"
"""What the model, the suite and the calibration text that ship with harness are called."""
_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    installed = _PACKAGE / "files" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def recipes() -> Path:
    """Return the folder of the shipped recipes."""
    return _folder("recipes")


def suites() -> Path:
    """Return the folder of the shipped suites."""
    return _folder("evals") / "suites"


def tasks() -> Path:
    """Return the folder of the shipped lm-eval tasks."""
    return _folder("evals") / "tasks"


def smoke() -> Path:
    """Return the folder of the shipped smoke sets."""
    return _folder("evals") / "smoke"


def calibration() -> Path:
    """Return the folder of the shipped calibration texts."""
    return _folder("evals") / "calibration"


def canary() -> Path:
    """Return the folder of the canary: `model/`, its calibration text and its datasheet."""
    return _folder("evals") / "canary"
