"""The `docker` engine: the same vLLM server in a container, through the docker SDK."""

from harness.errors import PrerequisiteError

try:
    # The SDK is an extra, so this package is imported only where this engine was asked for.
    from harness.serve.docker.engine import ENGINE
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "docker":
        raise
    _MESSAGE = "--engine docker needs the docker SDK. Type pip install 'docker>=7.1,<8'."
    raise PrerequisiteError(_MESSAGE) from error

__all__ = ["ENGINE"]
