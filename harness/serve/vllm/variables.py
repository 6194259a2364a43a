"""The environment of a server: what it is given, and what of it is recorded.

Both are lists of what is allowed. Whoever starts harness may have passwords and tokens in the
environment, under any name, and vLLM has variables that read files, load code or exchange the
model; a server that answers a few questions about local files needs none of them.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.surroundings import SEARCHED, absolute_entries

REPORT_VARIABLE = "HARNESS_LOAD_REPORT"
REPORT_PREFIX = "load_report"
KEY_VARIABLE = "VLLM_API_KEY"
ADDRESS_VARIABLE = "VLLM_HOST_IP"
_OURS = {KEY_VARIABLE, ADDRESS_VARIABLE}

_RECORDED = frozenset(
    """
    VLLM_BATCH_INVARIANT VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER VLLM_CPU_ATTN_SPLIT_KV
    VLLM_CPU_KVCACHE_SPACE VLLM_CPU_NUM_OF_RESERVED_CPU VLLM_CPU_OMP_THREADS_BIND
    VLLM_DISABLED_KERNELS VLLM_DISABLE_COMPILE_CACHE VLLM_DISABLE_PYNCCL
    VLLM_ENABLE_V1_MULTIPROCESSING VLLM_FLASHINFER_ALLREDUCE_BACKEND
    VLLM_FLOAT32_MATMUL_PRECISION VLLM_KV_CACHE_LAYOUT VLLM_MARLIN_USE_ATOMIC_ADD
    VLLM_MOE_USE_DEEP_GEMM VLLM_NO_USAGE_STATS VLLM_SKIP_P2P_CHECK VLLM_USE_DEEP_GEMM
    VLLM_USE_DEEP_GEMM_E8M0 VLLM_USE_FLASHINFER_SAMPLER VLLM_USE_NCCL_SYMM_MEM
    VLLM_USE_V2_MODEL_RUNNER VLLM_WORKER_MULTIPROC_METHOD
    """.split()  # noqa: SIM905 -- a name a line would be two screens
)
"""vLLM's own that decide how numbers are computed."""
_PASSED = _RECORDED.union(
    """
    CUBLAS_WORKSPACE_CONFIG
    CUDA_CACHE_MAXSIZE CUDA_CACHE_PATH CUDA_DEVICE_MAX_CONNECTIONS CUDA_DEVICE_ORDER CUDA_HOME
    CUDA_LAUNCH_BLOCKING CUDA_MODULE_LOADING CUDA_PATH CUDA_VISIBLE_DEVICES
    FLASHINFER_WORKSPACE_BASE GLOO_SOCKET_IFNAME GOMP_CPU_AFFINITY HF_HOME HOME KMP_AFFINITY
    KMP_BLOCKTIME LANG LANGUAGE LD_LIBRARY_PATH LOGNAME MKL_NUM_THREADS MKL_THREADING_LAYER
    NCCL_ALGO NCCL_CUMEM_ENABLE NCCL_DEBUG NCCL_IB_DISABLE NCCL_IB_HCA NCCL_MAX_NCHANNELS
    NCCL_MIN_NCHANNELS NCCL_NET NCCL_NVLS_ENABLE NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_PROTO
    NCCL_SHM_DISABLE NCCL_SOCKET_IFNAME
    NVIDIA_DRIVER_CAPABILITIES NVIDIA_TF32_OVERRIDE NVIDIA_VISIBLE_DEVICES OMP_NUM_THREADS
    OMP_PLACES OMP_PROC_BIND OMP_WAIT_POLICY OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS PATH
    PYTHONDONTWRITEBYTECODE PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF TEMP TMP TMPDIR
    TORCHINDUCTOR_CACHE_DIR TORCH_CUDA_ARCH_LIST TRITON_CACHE_DIR TZ USER
    VLLM_CACHE_ROOT VLLM_ENGINE_READY_TIMEOUT_S VLLM_LOGGING_COLOR
    XDG_CACHE_HOME
    """.split()  # noqa: SIM905 -- as above
)
_LOCALE = re.compile(r"LC_[A-Z]+")


def passed_on() -> dict[str, str]:
    """Return what of this process's environment a process of vLLM's is given."""
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or _LOCALE.fullmatch(name)
    }
    for name in SEARCHED:
        if name in chosen:
            chosen[name] = absolute_entries(chosen[name])
    chosen["PATH"] = chosen.get("PATH") or os.defpath.lstrip(os.pathsep)
    return chosen


def left_out() -> tuple[str, ...]:
    """Return the names of vLLM's variables that are set here and not passed on."""
    return tuple(
        sorted(
            name
            for name in os.environ
            if name.startswith("VLLM_") and name not in _PASSED and name not in _OURS
        )
    )


def process_environment(
    own: Mapping[str, str], *, python: Path, gpus: tuple[int, ...] | None
) -> dict[str, str]:
    """Return the whole environment of a server process: ours, and of what is there what it needs.

    Args:
        own: the variables that harness sets.
        python: of vLLM's environment, whose programs are found first.
        gpus: those that it may use; None leaves it to the environment.
    """
    inherited = passed_on()
    path = os.pathsep.join([str(python.parent), inherited["PATH"]])
    chosen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus is not None else {}
    return {**inherited, **own, **chosen, "PATH": path}


def recorded_arguments(flags: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what Deployment records: the flags, and vLLM's own variables, which decide too.

    Of a variable that is not known to be one of those (an image may bring some) the name alone.
    """
    own = (name for name in sorted(environment) if name.startswith("VLLM_"))
    variables = (
        f"{name}={environment[name]}" if name in _RECORDED else name
        for name in own
        if name in _RECORDED or (name not in _PASSED and name not in _OURS)
    )
    return (*flags, *variables)
