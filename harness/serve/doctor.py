"""What this machine has for each engine, and the command that adds what it lacks."""

import ctypes.util
import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from harness.engines import MODELOPT, SETUP, capability_of
from harness.errors import PrerequisiteError
from harness.serve.sglang.environment import INSTALL, ask_sglang
from harness.serve.sglang.environment import VARIABLE as SGLANG_VARIABLE
from harness.serve.trtllm.environment import VARIABLE as TRTLLM_VARIABLE
from harness.serve.trtllm.environment import ask_trtllm
from harness.serve.vllm.environment import (
    BESIDE,
    VARIABLE,
    VllmEnvironment,
    ask_vllm,
    find_vllm,
)

_GIB = 1 << 30
_LOW_MEMORY_BYTES = 4 * _GIB
_LOW_DISK_BYTES = 5 * _GIB
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """One thing that a machine has or lacks."""

    name: str
    ok: bool
    found: str
    fix: str
    """The command or step that would add it; empty where nothing is to be done."""


def examine() -> tuple[Diagnosis, ...]:
    """Look at this machine; nothing is changed and no model is read."""
    return (
        _python(),
        _libraries(),
        _gpus(),
        *_fused_kernels(),
        *_vllm(),
        _sglang(),
        _trtllm(),
        _docker(),
        _memory(),
        _disk(),
    )


def _python() -> Diagnosis:
    return Diagnosis(
        name="Python",
        ok=sys.version_info >= _OLDEST_PYTHON,
        found=f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        fix="install Python 3.11 or newer",
    )


def _libraries() -> Diagnosis:
    names = ("torch", "transformers", "lm_eval")
    return Diagnosis(
        name="libraries",
        ok=True,
        found=", ".join(f"{name} {version(name)}" for name in names),
        fix="",
    )


def _gpus() -> Diagnosis:
    count = torch.cuda.device_count()
    names = []
    for index in range(count):
        major, minor = torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        memory = f"{free / _GIB:.0f} of {total / _GIB:.0f} GiB free"
        names.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor}, {memory})")
    # A machine without a GPU is a complete one: the canary and the CPU build need none.
    return Diagnosis(name="GPUs", ok=True, found="; ".join(names) or "none", fix="")


def _fused_kernels() -> Iterator[Diagnosis]:
    """Name what calibration on a GPU is slower without; a CPU has no use for it."""
    if not torch.cuda.device_count():
        return
    package = "flash-linear-attention"
    try:
        found, ok = version(package), True
    except PackageNotFoundError:
        found, ok = "not installed: models with linear attention calibrate more slowly", False
    yield Diagnosis(name=package, ok=ok, found=found, fix=f"pip install {package}")


def _vllm() -> Iterator[Diagnosis]:
    fix = SETUP
    try:
        python = find_vllm()
        environment = ask_vllm(None) if python is not None else None
    except PrerequisiteError as error:
        yield Diagnosis(name="vLLM", ok=False, found=str(error), fix=fix)
        return
    if environment is None:
        found = f"neither ${VARIABLE} nor {BESIDE} of harness's own checkout holds it"
        yield Diagnosis(name="vLLM", ok=False, found=found, fix=fix)
        return
    yield _vllm_version(environment)
    if environment.platform == "cpu":
        # Without it the CPU build's kernels cannot be loaded.
        library = ctypes.util.find_library("numa")
        fix = "apt-get install libnuma1"
        yield Diagnosis(name="libnuma", ok=library is not None, found=library or "none", fix=fix)


def _vllm_version(environment: VllmEnvironment) -> Diagnosis:
    found = (
        f"{environment.version} ({environment.platform}, torch {environment.torch}, Python "
        f"{environment.python_version}) in '{environment.python}'"
    )
    try:
        capability = capability_of(environment.version, environment.platform)
    except PrerequisiteError as error:
        return Diagnosis(name="vLLM", ok=False, found=f"{found}: {error}", fix=SETUP)
    if environment.platform == "cuda" and not environment.gpus:
        found += ", built for CUDA where no GPU is"
        return Diagnosis(name="vLLM", ok=False, found=found, fix="scripts/setup-vllm cpu")
    if capability.tested:
        schemes = ", ".join(sorted(capability.schemes[MODELOPT].everywhere))
        found += f"; loads {schemes}"
    else:
        found += f"; not tested: 'harness doctor --vllm {environment.python}' asks what it can do"
    return Diagnosis(name="vLLM", ok=True, found=found, fix="")


def _sglang() -> Diagnosis:
    fix = f"{INSTALL}; then set {SGLANG_VARIABLE}=DIR"
    if not os.environ.get(SGLANG_VARIABLE):
        return _not_named("SGLang", SGLANG_VARIABLE, "sglang", fix)
    try:
        there = ask_sglang(None)
    except PrerequisiteError as error:
        return Diagnosis(name="SGLang", ok=False, found=str(error), fix=fix)
    found = (
        f"{there.version} ({there.platform}, torch {there.torch}, Python {there.python_version}) "
        f"in '{there.python}'"
    )
    return _on_gpus("SGLang", found, there.gpus)


def _trtllm() -> Diagnosis:
    fix = f"set {TRTLLM_VARIABLE} to an environment that has it, made by NVIDIA's instructions"
    if not os.environ.get(TRTLLM_VARIABLE):
        return _not_named("TensorRT-LLM", TRTLLM_VARIABLE, "trtllm", fix)
    try:
        there = ask_trtllm(None)
    except PrerequisiteError as error:
        return Diagnosis(name="TensorRT-LLM", ok=False, found=str(error), fix=fix)
    found = (
        f"{there.version} (torch {there.torch}, Python {there.python_version}) in '{there.python}'"
    )
    return _on_gpus("TensorRT-LLM", found, there.gpus)


def _not_named(name: str, variable: str, engine: str, fix: str) -> Diagnosis:
    found = f"${variable} names none; needed for --engine {engine} only"
    return Diagnosis(name=name, ok=False, found=found, fix=fix)


def _on_gpus(name: str, found: str, gpus: tuple[str, ...]) -> Diagnosis:
    """Say what was found of an engine that harness serves with on GPUs alone."""
    if gpus:
        return Diagnosis(name=name, ok=True, found=found, fix="")
    fix = "use a machine with a GPU, or --engine vllm with its CPU build"
    return Diagnosis(name=name, ok=False, found=f"{found}; the driver shows no GPU", fix=fix)


def _docker() -> Diagnosis:
    try:
        # Not the package itself: in the repository a folder without code has its name.
        importlib.import_module("docker.client")
    except ModuleNotFoundError:
        found = "no docker SDK; needed for --engine docker only"
        return Diagnosis(name="docker", ok=False, found=found, fix="pip install docker")
    docker = importlib.import_module("docker")
    try:
        client = docker.from_env()
        server = client.version()["Version"]
        client.close()
    except docker.errors.DockerException as error:
        found = f"no daemon answers: {str(error).splitlines()[0]}"
        fix = "start the docker daemon, and let this user talk to it"
        return Diagnosis(name="docker", ok=False, found=found, fix=fix)
    return Diagnosis(name="docker", ok=True, found=f"daemon {server}", fix="")


def _memory() -> Diagnosis:
    memory = psutil.virtual_memory()
    return Diagnosis(
        name="memory",
        ok=memory.available >= _LOW_MEMORY_BYTES,
        found=f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free",
        fix="end other programs: a vLLM server of the canary takes 4 GiB",
    )


def _disk() -> Diagnosis:
    free = shutil.disk_usage(Path.cwd()).free
    return Diagnosis(
        name="disk",
        ok=free >= _LOW_DISK_BYTES,
        found=f"{free / _GIB:.1f} GiB free in '{Path.cwd()}'",
        fix="free some space: vLLM's environment takes 3 to 10 GiB, checkpoints their own size",
    )
