"""The environment of an SGLang server: lists of what is allowed, as for vLLM.

Source: sglang 0.5.15, srt/environ.py.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.serve.vllm.variables import REPORT_PREFIX, REPORT_VARIABLE, passed_on

__all__ = ["REPORT_PREFIX", "own_variables", "recorded", "server_environment", "sglang_passed_on"]

_RECORDED = frozenset(
    """
    SGLANG_ENABLE_JIT_DEEPGEMM SGLANG_FLASHINFER_NVFP4_PER_TOKEN_ACTIVATION
    SGLANG_IS_FLASHINFER_AVAILABLE SGLANG_MOE_NVFP4_DISPATCH SGLANG_SUPPORT_CUTLASS_BLOCK_FP8
    """.split()  # noqa: SIM905 -- a name a line would be two screens
)
"""SGLang's own that decide how numbers are computed."""
_PASSED = ("CUTE_DSL_ARCH", "DG_JIT_CACHE_DIR", "TVM_FFI_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")


def sglang_passed_on() -> dict[str, str]:
    """Return what of this process's environment a process of SGLang's is given."""
    chosen = {name: os.environ[name] for name in (*_RECORDED, *_PASSED) if name in os.environ}
    inherited = {k: v for k, v in passed_on().items() if not k.startswith("VLLM_")}
    return {**inherited, **chosen}


def own_variables(*, plugin: str, records: str) -> dict[str, str]:
    """Return the variables that harness sets in a server's environment."""
    return {
        "PYTHONPATH": plugin,
        "PYTHONSAFEPATH": "1",
        REPORT_VARIABLE: f"{records}/{REPORT_PREFIX}",
        "HF_HUB_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
    }


def server_environment(
    own: Mapping[str, str], *, python: Path, gpus: tuple[int, ...] | None
) -> dict[str, str]:
    """Return the whole environment of a server process.

    Args:
        own: the variables that harness sets.
        python: of SGLang's environment, whose programs are found first.
        gpus: those that it may use; None leaves it to the environment.
    """
    inherited = sglang_passed_on()
    path = os.pathsep.join([str(python.parent), inherited["PATH"]])
    chosen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus is not None else {}
    return {**inherited, **own, **chosen, "PATH": path}


def recorded(flags: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what Deployment records: the flags, and SGLang's own variables, which decide too."""
    named = (f"{name}={environment[name]}" for name in sorted(_RECORDED) if name in environment)
    return (*flags, *named)
