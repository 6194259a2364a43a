"""What both makers of foreign checkpoints start from: the canary, and text to calibrate it."""

import json
import shutil
from pathlib import Path

CANARY = Path(__file__).resolve().parents[2] / "evals" / "canary"
MODEL = CANARY / "model"
MAX_TOKENS = 256
_SIDECARS = (
    "chat_template.jinja",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)


def calibration_texts(count: int) -> list[str]:
    """Return the first `count` texts of the canary's calibration file."""
    lines = (CANARY / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:count]]


def copy_sidecars(into: Path) -> None:
    """Copy what a server needs beside weights and configuration, byte for byte.

    A tokenizer that was loaded and saved again is another file, and the comparison with the
    unquantized model should not have to trust that it splits text alike.
    """
    for name in _SIDECARS:
        shutil.copyfile(MODEL / name, into / name)
