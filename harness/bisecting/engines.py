"""Versions of vLLM, each in an environment of its own, made when it is first needed."""

import os
from pathlib import Path

from harness.errors import EngineError, PrerequisiteError
from harness.kept import run_kept

_SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup-vllm"


def platform() -> str:
    """Return for what vLLM is installed here: `cuda` or `cpu`."""
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


def environment_of(value: str, into: Path) -> Path:
    """Return the environment of an engine: the folder that was named, or a version's own.

    Args:
        value: an absolute path, or a version.
        into: folder of the environments of versions.

    Raises:
        PrerequisiteError: there is no scripts/setup-vllm to install a version with.
        EngineError: it could not be installed.
    """
    if Path(value).is_absolute():
        return Path(value)
    if not _SETUP.is_file():
        message = (
            f"no {_SETUP.name} is here to install vLLM {value}. Use a checkout of harness, or name "
            f"an environment: {value}=FOLDER."
        )
        raise PrerequisiteError(message)
    folder = into / value
    into.mkdir(parents=True, exist_ok=True)
    log = into / f"{value}.log"
    command = [str(_SETUP), platform(), "--version", value]
    status = run_kept(
        command,
        os.environ | {"VENV": str(folder.absolute())},
        folder=_SETUP.parents[1],
        log=log,
        meanwhile=lambda: None,
    )
    if status:
        message = (
            f"vLLM {value} could not be installed (scripts/setup-vllm ended {status}). '{log}' "
            "says why."
        )
        raise EngineError(message)
    return folder
