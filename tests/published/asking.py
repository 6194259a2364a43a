"""Ask `verify` and `gate --plan` about a built checkpoint, in this process."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from harness.cli import app
from harness.errors import HarnessError
from harness.verify import verify
from tests.published.build import write
from tests.published.faults import Planted

ENGINES = ("vllm==0.25.0", "vllm==0.32.0", "vllm==0.33.0")
"""The versions whose rules are known."""
NOT_READ = "unsupported-format"


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    reason: str = ""
    message: str = ""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What happened, in a word or two."""
        if self.code == 0:
            return "read"
        if self.reason == NOT_READ:
            return "not read"
        return f"exit {self.code}: {', '.join(self.errors) or self.reason}"


def ask_verify(folder: Path, engine: str | None = None) -> Answer:
    """Return what `harness verify FOLDER [--engine ENGINE]` ends with."""
    try:
        report = verify(folder, engine=engine)
    except HarnessError as error:
        return Answer(error.exit_code, str(error.reason), str(error))
    failed = [check for check in report.checks if not check.passed]
    errors = tuple(check.id for check in report.errors)
    return Answer(
        code=4 if errors else 0,
        reason="integrity-failed" if errors else "",
        message="; ".join(f"{check.id}: {check.message}" for check in failed),
        errors=errors,
        warnings=tuple(check.id for check in failed if check.id not in errors),
    )


def ask_plan(folder: Path, baseline: Path, store: Path) -> Answer:
    """Return what `harness gate FOLDER --baseline BASELINE --plan` ends with."""
    typed = ["--quiet", "gate", str(folder), "--baseline", str(baseline), "--plan", "--json"]
    typed += ["--suite", "smoke"]  # what a suite can decide is no matter here, and takes time
    kept = {"HARNESS_BASELINES": str(store)}
    done = CliRunner().invoke(app, typed, env=kept, catch_exceptions=False)
    if done.exit_code == 0:
        return Answer(0)
    said = json.loads(done.stdout)
    return Answer(done.exit_code, said["reason_codes"][0], said["error"])


def is_found(planted: Planted, folder: Path, engine: str | None = None) -> tuple[bool, Answer]:
    """Return whether the finding that names a planted fault is there, and the answer."""
    shutil.rmtree(folder, ignore_errors=True)
    answer = ask_verify(write(planted.built, folder), engine)
    lines = [line for line in answer.message.split("; ") if line.startswith(f"{planted.check}:")]
    named = any(planted.named in line for line in lines)
    return planted.check in answer.errors and named, answer
