"""What the plugin needs of vLLM, by name, in groups that are there or missing as a whole.

The plugin wraps functions that vLLM promises to nobody, and every release may move or change them.
So each group of them has an adapter: it is installed where all that it touches exists and takes
what we give, and else left out with the reason, which the load report carries under `missing`.
What keeps the server safe is never left out: there the process ends.

    python -m harness_vllm.adapters     in vLLM's environment: what would be found, as JSON

Standard library only, until something is looked up.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Callable, MutableMapping
from contextlib import redirect_stdout
from typing import Any, NamedTuple


class Need(NamedTuple):
    """A function or class of vLLM, and the parameters by which we know it."""

    places: tuple[str, ...]
    """`module:name.of.it`; the first that exists is it, newest first."""
    takes: tuple[str, ...] = ()


class Adapter(NamedTuple):
    """A group of names that stand or fall together."""

    name: str
    module: str
    """Of this package; importing it looks up the classes that it builds on. A tuple `PROVIDES` in
    it holds the classes that vLLM will make objects of."""
    needs: tuple[Need, ...] = ()
    installs: str | None = "install"
    """The module's function that puts the adapter into vLLM; None where it is only called."""
    is_cpu_only: bool = False
    is_mandatory: bool = False


_LOADERS = "vllm.model_executor.model_loader"
_LAYERS = "vllm.model_executor.layers"
_LINEAR = "vllm.model_executor.kernels.linear"
_MODULAR = f"{_LAYERS}.fused_moe.modular_kernel"

MIDDLEWARE = Need(
    (
        "vllm.entrypoints.serve.middleware.authenticate:AuthenticationMiddleware",
        "vllm.entrypoints.serve.utils.server_utils:AuthenticationMiddleware",
    )
)
"""Where it is: from 0.29.0 on, before."""

LISTENING = Adapter("own-address", "listening", installs="listen_here_alone", is_mandatory=True)
API_KEY = Adapter(
    "api-key",
    "guard",
    needs=(
        MIDDLEWARE,
        Need(tuple(f"{p}.__call__" for p in MIDDLEWARE.places), takes=("scope", "receive", "send")),
        Need(tuple(f"{p}.verify_token" for p in MIDDLEWARE.places), takes=("headers",)),
    ),
    installs="guard_all_paths",
    is_mandatory=True,
)
BASE_LOADER = Need((f"{_LOADERS}.base_loader:BaseModelLoader",))
DEFAULT_LOADER = Need((f"{_LOADERS}.default_loader:DefaultModelLoader",))
MODEL_LOADING = Adapter(
    "model-loading",
    "loading",
    needs=(
        Need(
            (f"{_LOADERS}.base_loader:BaseModelLoader.load_model",),
            takes=("self", "vllm_config", "model_config"),
        ),
    ),
    installs=None,
)
LOAD_REPORT = Adapter(
    "load-report",
    "watch",
    needs=(
        Need(
            (f"{_LOADERS}.default_loader:DefaultModelLoader.load_weights",),
            takes=("model", "model_config"),
        ),
        Need(
            (f"{_LOADERS}.default_loader:DefaultModelLoader.get_all_weights",),
            takes=("model_config", "model"),
        ),
        Need((f"{_LOADERS}.default_loader:DefaultModelLoader._prepare_weights",)),
    ),
    installs=None,
)
KERNEL_NAMES = Adapter("kernel-names", "kernels", installs=None)
KV_SCALES = Adapter("kv-scales", "kv_scales", installs=None)
EXPERT_SCALES = Adapter("expert-scales", "expert_scales", installs=None)
EVIDENCE = (LOAD_REPORT, KV_SCALES, EXPERT_SCALES, KERNEL_NAMES)
"""What the load report is made with; each may be missing."""
_EXPERTS_APPLY = Need(
    (f"{_MODULAR}:FusedMoEExpertsModular.apply",),
    takes=(
        "output",
        "hidden_states",
        "w1",
        "w2",
        "topk_weights",
        "topk_ids",
        "activation",
        "apply_router_weight_on_input",
    ),
)
TORCHVISION = Adapter(
    "cpu-torchvision", "torchvision_stub", installs="stub_torchvision", is_cpu_only=True
)
CPU = (
    Adapter(
        "cpu-linear-nvfp4",
        "cpu_linear_nvfp4",
        needs=(
            Need((f"{_LINEAR}:_POSSIBLE_NVFP4_KERNELS",)),
            Need((f"{_LINEAR}:_LINEAR_BACKEND_KERNEL_MAP",)),
            Need((f"{_LINEAR}:init_nvfp4_linear_kernel",), takes=("use_a16",)),
            Need((f"{_LAYERS}.quantization.modelopt:init_nvfp4_linear_kernel",)),
        ),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-linear-fp8",
        "cpu_linear_fp8",
        needs=(
            Need((f"{_LINEAR}:_POSSIBLE_FP8_KERNELS",)),
            Need(
                (f"{_LINEAR}.scaled_mm:FP8ScaledMMLinearKernel.apply_scaled_mm",),
                takes=("A", "B", "out_dtype", "As", "Bs", "bias"),
            ),
        ),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-experts-nvfp4",
        "cpu_experts_nvfp4",
        needs=(
            _EXPERTS_APPLY,
            Need((f"{_LAYERS}.fused_moe.oracle.nvfp4:backend_to_kernel_cls",), takes=("backend",)),
        ),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-experts-fp8",
        "cpu_experts_fp8",
        needs=(
            _EXPERTS_APPLY,
            Need(
                (f"{_LAYERS}.fused_moe.oracle.fp8:select_fp8_moe_backend",),
                takes=("config", "weight_key", "activation_key"),
            ),
            Need((f"{_LAYERS}.quantization.modelopt:select_fp8_moe_backend",)),
        ),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-static-fp8-quant",
        "cpu_fp8_quant",
        needs=(Need(("vllm._custom_ops:scaled_fp8_quant",), takes=("input", "scale")),),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-topk",
        "cpu_topk",
        needs=(
            Need(
                ("vllm._custom_ops:topk_softmax",),
                takes=("topk_weights", "topk_ids", "token_expert_indices", "gating_output"),
            ),
            Need(("vllm._custom_ops:topk_sigmoid",)),
        ),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-workspace",
        "cpu_workspace",
        needs=(Need((f"{_MODULAR}:current_workspace_manager",)),),
        is_cpu_only=True,
    ),
    Adapter(
        "cpu-compressed-tensors",
        "cpu_compressed_tensors",
        is_cpu_only=True,
    ),
)
"""The kernels that vLLM's CPU build lacks, each group by itself; installed before a load."""
ADAPTERS = (
    LISTENING,
    API_KEY,
    MODEL_LOADING,
    *EVIDENCE,
    TORCHVISION,
    *CPU,
)


class NotFoundError(RuntimeError):
    """Something that an adapter needs is missing, or not what we know; the text is the reason."""


def find(need: Need) -> Any:
    """Return what is needed.

    Raises:
        NotFoundError: it is not there, or does not take what we know it by.
    """
    for place in need.places:
        found = _at(place)
        if found is not None:
            break
    else:
        message = f"there is no {need.places[0].replace(':', '.')}"
        raise NotFoundError(message)
    if need.takes:
        _check_parameters(found, need.takes, place.partition(":")[2])
    return found


def module_of(adapter: Adapter) -> Any:
    """Import an adapter's module, after all that it needs was found.

    Raises:
        NotFoundError: something is missing.
    """
    for need in adapter.needs:
        find(need)
    try:
        module = importlib.import_module(f"{__package__}.{adapter.module}")
    except Exception as error:
        raise NotFoundError(_reason(error)) from error
    for provided in getattr(module, "PROVIDES", ()):
        if lacking := sorted(getattr(provided, "__abstractmethods__", ())):
            message = f"vLLM asks {provided.__name__} for '{lacking[0]}', which it does not have"
            raise NotFoundError(message)
    return module


def is_there(adapter: Adapter, missing: MutableMapping[str, str]) -> bool:
    """Return whether all is there that an adapter needs, or note what is not."""
    try:
        module_of(adapter)
    except NotFoundError as error:
        missing[adapter.name] = str(error)
        return False
    return True


def install(adapter: Adapter, missing: MutableMapping[str, str]) -> bool:
    """Put an adapter into this process, or note why it is left out.

    Args:
        adapter: what to install.
        missing: gets the reason, by the adapter's name.

    Raises:
        RuntimeError: it is missing, and mandatory.
    """
    try:
        module = module_of(adapter)
        if adapter.installs is not None:
            _installed(getattr(module, adapter.installs))
    except NotFoundError as error:
        if adapter.is_mandatory:
            message = f"harness_vllm: {adapter.name}: {error}"
            raise RuntimeError(message) from error
        missing[adapter.name] = str(error)
        return False
    return True


def survey(platform: str) -> dict[str, Any]:
    """Return which adapters this environment has, without installing any."""
    asked = [a for a in ADAPTERS if platform == "cpu" or not a.is_cpu_only]
    missing: dict[str, str] = {}
    found = [a.name for a in asked if is_there(a, missing)]
    return {
        "found": found,
        "missing": missing,
        "mandatory": [a.name for a in asked if a.is_mandatory],
    }


def _installed(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception as error:
        raise NotFoundError(_reason(error)) from error


def _at(place: str) -> Any:
    """Return what lies at `module:name.of.it`; None where nothing does."""
    module, _, path = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            return None
        raise NotFoundError(_reason(error)) from error  # it is there, and what it imports is not
    except Exception as error:
        raise NotFoundError(_reason(error)) from error
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            return None
    return found


def _check_parameters(found: Any, takes: tuple[str, ...], name: str) -> None:
    if not callable(found):
        message = f"{name} cannot be called"
        raise NotFoundError(message)
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError) as error:
        message = f"{name} does not say what it takes"
        raise NotFoundError(message) from error
    for parameter in takes:
        if parameter not in parameters:
            message = f"{name} has no parameter '{parameter}'"
            raise NotFoundError(message)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _main() -> None:
    """Print what this environment has as one line of JSON."""
    with redirect_stdout(sys.stderr):  # vLLM's log lines
        platforms = importlib.import_module("vllm.platforms")
        version = importlib.import_module("vllm.version").__version__
        is_cpu = platforms.current_platform.is_cpu()
        platform = "cpu" if is_cpu else str(platforms.current_platform.device_type)
        told = {"vllm": version, "platform": platform, **survey(platform)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    _main()
