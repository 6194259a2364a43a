"""Kernels for GPUs without one: interpreted, with a multiply-add that rounds once, and compiled."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiers import slow

MOST_SHARED = 227 * 1024
"""Bytes that the threads of a program may share on an H100 or H200."""


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
        root = Path(__file__).resolve().parents[1]
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)

    return run


@pytest.fixture(scope="session")
@slow("Triton's compiler takes seconds")
def compile_kernel() -> Callable[..., Any]:
    pytest.importorskip("triton", reason="needs Triton, which CUDA builds of torch bring along")

    def compiled(
        kernel: object, types: Mapping[str, str], constants: Mapping[str, int], options: object
    ) -> object:
        """Compile a kernel for an H100 or H200, down to the machine's code."""
        from triton import compile as compile_source  # noqa: PLC0415 - not everywhere
        from triton.backends.compiler import GPUTarget  # noqa: PLC0415
        from triton.compiler import ASTSource  # noqa: PLC0415

        names = [*types, *constants]
        signature = {**types, **dict.fromkeys(constants, "constexpr")}
        places = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, signature, places)
        return compile_source(source, target=GPUTarget("cuda", 90, 32), options=options)

    return compiled


def round_once() -> None:
    """Let the interpreter's multiply-add round once.

    The sum of the exact product is rounded to odd in float64, so that the second rounding is right.
    """
    from triton.runtime import interpreter  # noqa: PLC0415 - not everywhere

    def fused(_: object, x: Any, y: Any, z: Any) -> object:  # noqa: ANN401 - Triton's own type
        product, other = x.data.astype(np.float64) * y.data.astype(np.float64), z.data
        total = np.asarray(product + other.astype(np.float64))
        back = total - product
        error = (product - (total - back)) + (other - back)
        bits = total.view(np.int64)
        is_even = (error != 0) & (bits & 1 == 0)
        bits = np.where(is_even, bits + np.where((error > 0) == (total > 0), 1, -1), bits)
        data = bits.view(np.float64).astype(np.float32)
        return interpreter.TensorHandle(data, z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = fused
