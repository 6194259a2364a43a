"""Kernels for GPUs, run without one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiers import slow


@pytest.fixture(scope="session")
@slow("Triton's interpreter runs a kernel number by number, in a process of its own")
def interpret() -> Callable[[str], None]:
    pytest.importorskip("triton", reason="needs Triton, which CUDA builds of torch bring along")

    def run(module: str) -> None:
        """Call a module's `interpreted` in a process whose Triton interprets.

        It does so from the time on when it is imported.
        """
        code = f"from {module} import interpreted; interpreted()"
        environment = os.environ | {"TRITON_INTERPRET": "1"}
        root = Path(__file__).resolve().parents[2]
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)

    return run
