"""Which TensorRT-LLM is there: found by place, asked without importing it.

It lives in an environment of its own. Looked for: what the run was told (`--trtllm`), then
$HARNESS_TRTLLM; never in the current folder.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.doors import expanded
from harness.errors import PrerequisiteError
from harness.serve.vllm.environment import PROBE as DRIVER_PROBE
from harness.serve.vllm.variables import passed_on

VARIABLE = "HARNESS_TRTLLM"
PROBE = Path(__file__).with_name("probe.py")
_PROBE_SECONDS = 60
_GENERATION = re.compile(r"\(sm_([0-9]{2,3})[a-z]?\)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrtllmEnvironment:
    """A Python that has TensorRT-LLM."""

    python: str
    version: str
    torch: str
    python_version: str
    gpus: tuple[str, ...]
    """Such as `NVIDIA H200 (sm_90)`, as the driver shows them to us."""
    algorithms: frozenset[str]
    """Members of its `QuantAlgo`; empty where they could not be read."""

    @property
    def generation(self) -> int | None:
        """Return the first GPU's compute capability, such as 90; None where it is not known."""
        found = _GENERATION.search(self.gpus[0]) if self.gpus else None
        return int(found[1]) if found else None


def ask_trtllm(place: str | None) -> TrtllmEnvironment:
    """Find TensorRT-LLM's environment and ask what is in it.

    Args:
        place: a folder of a virtual environment, its `bin/python`, or any Python; None for
            $HARNESS_TRTLLM.

    Raises:
        PrerequisiteError: there is none, or no TensorRT-LLM is in it.
    """
    python = _find(place)
    try:
        asked = subprocess.run(
            [str(python), "-I", str(PROBE), str(DRIVER_PROBE)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env=passed_on(),
            cwd="/",  # where nobody but root can put anything
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"'{python}' does not run: {error}. Name another environment with --trtllm."
        raise PrerequisiteError(message) from error
    try:
        found = json.loads(asked.stdout)
        return TrtllmEnvironment(
            python=str(python),
            version=str(found["version"]),
            torch=str(found["torch"]),
            python_version=str(found["python_version"]),
            gpus=tuple(map(str, found["gpus"])),
            algorithms=frozenset(map(str, found["algorithms"])),
        )
    except (ValueError, TypeError, KeyError) as error:
        said = (asked.stderr or asked.stdout).strip().splitlines() or ["it said nothing"]
        message = (
            f"no TensorRT-LLM was found by '{python}': {said[-1][:300]}. Name the environment "
            "that has it with --trtllm."
        )
        raise PrerequisiteError(message) from error


def _find(place: str | None) -> Path:
    named = place or os.environ.get(VARIABLE)
    if not named:
        message = (
            f"no TensorRT-LLM was named: no --trtllm, no ${VARIABLE}. Name the environment that "
            "has it with --trtllm PATH."
        )
        raise PrerequisiteError(message)
    path = expanded(named)
    # Not resolved: a virtual environment's python is a link, and it is the link that counts.
    python = path / "bin" / "python" if path.is_dir() else path
    if python.is_file() and os.access(python, os.X_OK):
        return python.absolute()
    origin = "--trtllm" if place else f"${VARIABLE}"
    message = (
        f"{origin} '{path}' is neither a Python nor the folder of an environment. Name one that "
        "has TensorRT-LLM."
    )
    raise PrerequisiteError(message)
