"""Which SGLang is there: found by place, asked without importing it; then what it says of itself.

It lives in an environment of its own, since its pins must not bind ours. Looked for: what the run
was told (`--sglang`), then $HARNESS_SGLANG. Never in the current folder.
"""

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.doors import expanded
from harness.errors import PrerequisiteError
from harness.serve.vllm.answers import ASKING_SECONDS, Answers, Said, read_answers, remembered
from harness.serve.vllm.environment import run_inside

_log = logging.getLogger("harness.serve")
VARIABLE = "HARNESS_SGLANG"
PROBE = Path(__file__).with_name("probe.py")
QUESTIONS = Path(__file__).with_name("questions.py")
_PROBE_SECONDS = 60
_CAPABILITY = re.compile(r"\(sm_(\d+)(\d)\)$")
INSTALL = "python3 -m venv DIR && DIR/bin/pip install sglang"


@dataclass(frozen=True, kw_only=True, slots=True)
class SglangEnvironment:
    """A Python that has SGLang."""

    python: str
    version: str
    platform: str
    """`cuda` or `cpu`: what its torch is built for."""
    torch: str
    python_version: str
    gpus: tuple[str, ...]
    """Such as `NVIDIA H200 (sm_90)`, as the driver shows them to us."""
    installed: str = ""

    @property
    def name(self) -> str:
        """Return how a message names it."""
        return f"SGLang {self.version} in '{self.python}'"

    @property
    def capability(self) -> tuple[int, int]:
        """Return the compute capability of the first GPU; (0, 0) where there is none."""
        found = _CAPABILITY.search(self.gpus[0]) if self.gpus else None
        return (int(found[1]), int(found[2])) if found else (0, 0)


def find_sglang(place: str | None = None) -> Path | None:
    """Return the Python of SGLang's environment; None where nobody named one.

    Args:
        place: a folder of a virtual environment, its `bin/python`, or any Python; None asks
            $HARNESS_SGLANG. Nothing is run.

    Raises:
        PrerequisiteError: what was named is no Python.
    """
    named = place or os.environ.get(VARIABLE)
    if not named:
        return None
    found = expanded(named)
    # Not resolved: a virtual environment's python is a link, and it is the link that counts.
    python = found / "bin" / "python" if found.is_dir() else found
    if python.is_file() and os.access(python, os.X_OK):
        return python.absolute()
    origin = "--sglang" if place else f"${VARIABLE}"
    message = (
        f"{origin} '{found}' is neither a Python nor the folder of an environment. Name one that "
        f"has SGLang, or make one: {INSTALL}."
    )
    raise PrerequisiteError(message)


def ask_sglang(place: str | None) -> SglangEnvironment:
    """Find SGLang's environment and ask what is in it; `place` is that of `find_sglang`.

    Raises:
        PrerequisiteError: there is none, or no SGLang is in it.
    """
    python = find_sglang(place)
    if python is None:
        message = (
            f"no SGLang was named. Type --sglang PATH or set ${VARIABLE}; {INSTALL} makes an "
            "environment."
        )
        raise PrerequisiteError(message)
    asked = run_inside(python, (str(PROBE),), seconds=_PROBE_SECONDS)
    try:
        found = json.loads(asked.stdout)
        return SglangEnvironment(**{**found, "python": str(python), "gpus": tuple(found["gpus"])})
    except (ValueError, TypeError, KeyError) as error:
        lines = (asked.stderr or asked.stdout).strip().splitlines() or ["it said nothing"]
        message = f"no SGLang was found by '{python}': {lines[-1][:300]}. Make one: {INSTALL}."
        raise PrerequisiteError(message) from error


def ask_answers(environment: SglangEnvironment) -> Answers:
    """Return what the environment's SGLang says of itself; asked once, and then remembered."""

    def ask() -> Said:
        _log.info("serve: %s is asked what it can do", environment.name)
        asked = run_inside(Path(environment.python), (str(QUESTIONS),), seconds=ASKING_SECONDS)
        return Said.of(asked.returncode, asked.stdout, asked.stderr)

    identity = (environment.python, environment.version, *environment.gpus, environment.installed)
    return read_answers(remembered(ask, *identity, QUESTIONS.read_text(encoding="utf-8")))
