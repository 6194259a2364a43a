"""Which vLLM is there: found by place, asked without importing it.

vLLM lives in an environment of its own, since its pins must not bind ours. Looked for, in order:
what the run was told (`--vllm`), $HARNESS_VLLM, and `.venv-vllm` in the checkout that harness runs
from, where `scripts/setup-vllm` makes it. Never in the current folder: whoever filled that, as the
author of a cloned model has, would have a program of theirs run. Its Python is asked once, in a
process that reads the installed packages' metadata and the driver, and takes a tenth of a second.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.doors import expanded
from harness.engines import SETUP
from harness.errors import PrerequisiteError
from harness.serve.vllm.variables import passed_on

VARIABLE = "HARNESS_VLLM"
BESIDE = ".venv-vllm"
_REPOSITORY = Path(__file__).resolve().parents[3]
_SETUP_SCRIPT = _REPOSITORY / "scripts" / "setup-vllm"
PROBE = Path(__file__).with_name("probe.py")
_PROBE_SECONDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmEnvironment:
    """A Python that has vLLM."""

    python: str
    version: str
    """Of vLLM, such as `0.32.0`, without a local part."""
    platform: str
    """`cpu` or `cuda`: what this build of vLLM runs on."""
    torch: str
    python_version: str
    has_flashinfer: bool
    gpus: tuple[str, ...]
    """Such as `NVIDIA H200 (sm_90)`, as the driver shows them to us."""
    installed: str = ""
    """Changes when another vLLM is installed in the same place."""

    @property
    def device(self) -> str:
        """Return what Deployment calls the device."""
        return self.gpus[0] if self.platform == "cuda" and self.gpus else self.platform


def find_vllm(place: str | None = None) -> Path | None:
    """Return the Python of vLLM's environment; None where nobody named one and none lies around.

    Args:
        place: a folder of a virtual environment, its `bin/python`, or any Python; None looks
            around. Nothing is run.

    Raises:
        PrerequisiteError: what was named is no Python.
    """
    named = place or os.environ.get(VARIABLE)
    if named:
        return _python_of(expanded(named), "--vllm" if place else f"${VARIABLE}")
    python = _REPOSITORY / BESIDE / "bin" / "python"
    # Elsewhere than in a checkout nobody makes one there, and whoever did was not harness.
    return python if _SETUP_SCRIPT.is_file() and python.exists() else None


def ask_vllm(place: str | None) -> VllmEnvironment:
    """Find vLLM's environment and ask what is in it; `place` is that of `find_vllm`.

    Raises:
        PrerequisiteError: there is none, or no vLLM is in it.
    """
    python = find_vllm(place)
    if python is None:
        message = (
            f"no vLLM was found: no --vllm, no ${VARIABLE}, no '{_REPOSITORY / BESIDE}'. "
            f"Make one with {SETUP}, or name one with --vllm PATH."
        )
        raise PrerequisiteError(message)
    asked = run_inside(python, (str(PROBE),), seconds=_PROBE_SECONDS)
    try:
        found = json.loads(asked.stdout)
        return VllmEnvironment(**{**found, "python": str(python), "gpus": tuple(found["gpus"])})
    except (ValueError, TypeError, KeyError) as error:
        message = f"no vLLM was found by '{python}': {_last_line(asked)}. Install it with {SETUP}."
        raise PrerequisiteError(message) from error


def run_inside(
    python: Path, arguments: tuple[str, ...], *, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a script of ours with vLLM's Python, which sees nothing of ours, and wait for its end.

    Raises:
        PrerequisiteError: it does not run, or not to its end in time.
    """
    try:
        return subprocess.run(
            [str(python), "-I", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env=passed_on(),
            cwd="/",  # where nobody but root can put anything
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"'{python}' does not run: {error}. Make vLLM's environment with {SETUP}."
        raise PrerequisiteError(message) from error


def _last_line(asked: subprocess.CompletedProcess[str]) -> str:
    lines = (asked.stderr or asked.stdout).strip().splitlines() or ["it said nothing"]
    return lines[-1][:300]


def _python_of(place: Path, origin: str) -> Path:
    # Not resolved: a virtual environment's python is a link, and it is the link that counts.
    python = place / "bin" / "python" if place.is_dir() else place
    if python.is_file() and os.access(python, os.X_OK):
        return python.absolute()
    message = (
        f"{origin} '{place}' is neither a Python nor the folder of an environment. "
        f"Name one that has vLLM, or make one with {SETUP}."
    )
    raise PrerequisiteError(message)
