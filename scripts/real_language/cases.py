"""What is done to the language model, and how each of it must end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.drill.tampering import link_checkpoint, tampering

GO = ("GO",)
NEVER_GO = ("NO-GO", "INCONCLUSIVE", "refused")
ANY = (*GO, *NEVER_GO)
_OTHER_TEMPLATE = """\
{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}
{% endfor %}"""


class Case(NamedTuple):
    """A candidate: quantized by `e2e`, or made of a correct one and judged by `gate`."""

    name: str
    qformat: str
    must_end: tuple[str, ...]
    calibration: str = ""
    """File of texts in the work folder; empty for the default set."""
    spoil: Callable[[Path], None] | None = None


def exchange_scales(checkpoint: Path) -> None:
    """Let two experts of one layer change their weights' scales."""
    with tampering(checkpoint) as files:
        for name in files.matching(r".*layers\.15\..*experts\.0\.\w+\.weight_scale"):
            twin = name.replace("experts.0.", "experts.1.")
            files.tensors[name], files.tensors[twin] = files.tensors[twin], files.tensors[name]


def enlarge_scale(checkpoint: Path) -> None:
    """Make the scales of one expert eight times what they are."""
    with tampering(checkpoint) as files:
        files.change(r".*layers\.15\..*experts\.0\.\w+\.weight_scale", lambda scale: scale * 8)


def exchange_template(checkpoint: Path) -> None:
    """Give the checkpoint the chat template of another model."""
    with tampering(checkpoint) as files:
        files.put("chat_template.jinja", _OTHER_TEMPLATE.encode())


CASES = (
    Case("fp8", "fp8", GO),
    Case("nvfp4", "nvfp4", ANY),
    Case("w4a16_nvfp4", "w4a16_nvfp4", ANY),
    Case("fp8, two experts' scales exchanged", "fp8", NEVER_GO, spoil=exchange_scales),
    Case("fp8, an expert's scale 8 times", "fp8", NEVER_GO, spoil=enlarge_scale),
    Case("fp8, another chat template", "fp8", NEVER_GO, spoil=exchange_template),
    Case("fp8, calibrated with one letter", "fp8", NEVER_GO, calibration="one_letter.jsonl"),
)


def write_bad_calibration(folder: Path) -> None:
    """Write texts that hold one letter over and over."""
    line = json.dumps({"text": "a" * 200})
    (folder / "one_letter.jsonl").write_text(f"{line}\n" * 64, encoding="utf-8")


def spoiled(case: Case, correct: Path, into: Path) -> Path:
    """Return a copy of a correct checkpoint with the case's fault in it."""
    if case.spoil is None:
        message = f"case '{case.name}' spoils no files"
        raise ValueError(message)
    shutil.rmtree(into, ignore_errors=True)
    link_checkpoint(correct, into)
    case.spoil(into)
    return into
