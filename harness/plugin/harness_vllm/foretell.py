"""What vLLM would do with layers of each algorithm, by its own code; no model is needed.

`answers` takes declarations (quantization_config objects) by a key of the asker's and returns, for
a linear layer and for routed experts, `{"kernel": ..., "method": ..., "weights": type, "scales":
how many a matrix has room for}`, `{"refused": why}` where vLLM raises as it would at start, or
`{"unknown": why}` where this vLLM cannot be asked so.

    python -m harness_vllm.foretell 9.0 < declarations.json

asks for a GPU that is not here: vLLM's selection runs on a platform that says so, with the packages
that its releases for CUDA bring. What its compiled operators would say of such a GPU is taken from
their sources (csrc/quantization/w8a8/cutlass/scaled_mm_entry.cu, fp4/nvfp4_scaled_mm_entry.cu; CUDA
12.8 or newer).
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_QUANTIZATION = "vllm.model_executor.layers.quantization"
_LAYOUTS = (".modelopt", ".compressed_tensors.compressed_tensors", ".fp8", ".mxfp4")
_PREFIX = "model.layers.0.mlp"
_WIDTH, _NUM_EXPERTS = 2048, 64
"""Of each weight that is asked about: [2048, 2048]."""
_ASKED = {
    "tp_size": 1,
    "pcp_size": 1,
    "dp_size": 1,
    "ep_size": 1,
    "tp_rank": 0,
    "pcp_rank": 0,
    "dp_rank": 0,
    "ep_rank": 0,
    "sp_size": 1,
    "use_ep": False,
    "all2all_backend": "allgather_reducescatter",
    "enable_eplb": False,
    "num_experts": _NUM_EXPERTS,
    "num_local_experts": _NUM_EXPERTS,
    "num_logical_experts": _NUM_EXPERTS,
    "experts_per_token": 8,
    "hidden_dim": _WIDTH,
    "intermediate_size": _WIDTH,
    "intermediate_size_per_partition": _WIDTH,
    "has_shared_experts": False,
    "device": "cuda",
}
"""An ordinary layer of routed experts on one GPU, by the names of vLLM's configurations."""
_SUPPORTED: Mapping[str, Callable[[int], bool]] = {
    "cutlass_scaled_mm_supports_fp8": lambda sm: sm >= 89,  # noqa: PLR2004 -- as its source
    "cutlass_scaled_mm_supports_block_fp8": lambda sm: sm >= 90,  # noqa: PLR2004
    "cutlass_group_gemm_supported": lambda sm: sm >= 90,  # noqa: PLR2004
    "cutlass_scaled_mm_supports_fp4": lambda sm: 100 <= sm < 130,  # noqa: PLR2004
}
_OWN_REFUSALS = (ValueError, NotImplementedError)
"""What vLLM raises where it would not serve; anything else is a question that did not fit it."""


def answers(declarations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what becomes of each declaration on the platform that vLLM has."""
    return {key: _answer(one) for key, one in declarations.items()}


def _main() -> int:
    """Answer for the compute capability that is named, declarations from stdin, JSON to stdout."""
    major, minor = map(int, sys.argv[1].split("."))
    with contextlib.redirect_stdout(sys.stderr):  # vLLM's log lines
        _pretend(major, minor)
        told = answers(json.load(sys.stdin))
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _answer(declaration: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    config_module = importlib.import_module("vllm.config")
    torch = importlib.import_module("torch")
    torch.set_default_dtype(torch.bfloat16)
    parallel_state = importlib.import_module("vllm.distributed.parallel_state")
    parallel_state._TP = types.SimpleNamespace(rank_in_group=0, world_size=1)  # type: ignore[attr-defined]
    given = config_module.VllmConfig()
    text = importlib.import_module("transformers").PretrainedConfig()
    given.model_config = types.SimpleNamespace(
        dtype=torch.bfloat16, quantization=None, hf_config=text, hf_text_config=text
    )
    with config_module.set_current_vllm_config(given):
        return {
            "linear": _asked(declaration, _linear),
            "experts": _asked(declaration, _experts),
        }


def _asked(
    declaration: Mapping[str, Any], ask: Callable[[Any], dict[str, object]]
) -> dict[str, object]:
    try:
        with importlib.import_module("torch").device("meta"):
            return ask(_config_of(dict(declaration)))
    except _OWN_REFUSALS as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 -- whatever a vLLM of another year raises
        return {"unknown": f"{type(error).__name__}: {error}"}


def _described(layer: Any, name: str, num_matrices: int) -> dict[str, object]:
    """Return a layer's kernel, and the room for scales: unlike the files', it is not honoured."""
    held = dict(layer.named_parameters())
    weights = [p for n, p in held.items() if n.endswith(("weight", "weight_packed"))]
    scales = [p.numel() for n, p in held.items() if "weight_scale" in n]
    return {
        "kernel": name,
        "method": type(layer.quant_method).__name__,
        "weights": str(weights[0].dtype).removeprefix("torch."),
        "scales": max(scales, default=0) // num_matrices,
    }


def _config_of(declaration: dict[str, Any]) -> Any:
    """Return the configuration that vLLM makes of a declaration, by its own precedence."""
    known = dict(_configurations())
    chosen = declaration["quant_method"]
    for name, kind in known.items():
        if kind.override_quantization_method(declaration, None):
            chosen = name
            break
    if chosen not in known:
        message = f"there is no quantization method '{chosen}'"
        raise ValueError(message)
    made = known[chosen].from_config(declaration)
    made.packed_modules_mapping = {}
    return made


def _configurations() -> Iterator[tuple[str, Any]]:
    base = importlib.import_module(f"{_QUANTIZATION}.base_config").QuantizationConfig
    for layout in _LAYOUTS:
        with contextlib.suppress(ImportError):
            found = vars(importlib.import_module(_QUANTIZATION + layout)).values()
            kinds: list[Any] = [one for one in found if inspect.isclass(one)]
            for kind in kinds:
                if not issubclass(kind, base) or kind is base:
                    continue
                with contextlib.suppress(Exception):  # abstract ones have no name
                    yield str(kind.get_name(object.__new__(kind))), kind


def _linear(config: Any) -> dict[str, object]:
    torch = importlib.import_module("torch")
    linear = importlib.import_module("vllm.model_executor.layers.linear")
    layer = _bare(linear.ReplicatedLinear)
    layer.prefix = f"{_PREFIX}.down_proj"
    layer.quant_method = _method(config, layer, layer.prefix)
    layer.quant_method.create_weights(
        layer,
        input_size_per_partition=_WIDTH,
        output_partition_sizes=[_WIDTH],
        input_size=_WIDTH,
        output_size=_WIDTH,
        params_dtype=torch.bfloat16,
        weight_loader=_load_nothing,
    )
    return _described(layer, _plugin_names().name_of_linear(layer), 1)


def _experts(config: Any) -> dict[str, object]:
    torch = importlib.import_module("torch")
    fused = importlib.import_module("vllm.model_executor.layers.fused_moe")
    kinds = importlib.import_module("vllm.model_executor.layers.fused_moe.config")
    activation = importlib.import_module("vllm.model_executor.layers.fused_moe.activation")
    parallel = _filled(kinds.FusedMoEParallelConfig, _ASKED)
    known = {
        **_ASKED,
        "activation": activation.MoEActivation.SILU,
        "routing_method": kinds.RoutingMethodType.Renormalize,
        "moe_parallel_config": parallel,
        "in_dtype": torch.bfloat16,
    }
    layer = _bare(fused.RoutedExperts)
    layer.moe_config = _filled(kinds.FusedMoEConfig, known)
    layer.hidden_size = layer.intermediate_size_per_partition = _WIDTH
    layer.quant_method = _method(config, layer, f"{_PREFIX}.experts")
    layer.quant_method.create_weights(
        layer,
        num_experts=_NUM_EXPERTS,
        global_num_experts=_NUM_EXPERTS,
        hidden_size=_WIDTH,
        intermediate_size_per_partition=_WIDTH,
        params_dtype=torch.bfloat16,
        weight_loader=_load_nothing,
    )
    gate_and_up = 2 * _NUM_EXPERTS
    return _described(layer, _plugin_names().name_of_experts(layer), gate_and_up)


def _method(config: Any, layer: Any, name: str) -> Any:
    method = config.get_quant_method(layer, name)
    if method is None:
        message = "it is given no method, so its quantized tensors find no parameter"
        raise ValueError(message)
    return method


def _plugin_names() -> types.ModuleType:
    return importlib.import_module(f"{__package__}.kernels")


def _bare(kind: Any) -> Any:
    """Return a layer of this class without its weights, which no selection looks at."""
    layer = object.__new__(kind)
    importlib.import_module("torch").nn.Module.__init__(layer)
    return layer


def _filled(kind: Any, known: Mapping[str, object]) -> Any:
    wanted = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in known.items() if name in wanted})


def _load_nothing(*given: object, **named: object) -> None:
    del given, named


def _pretend(major: int, minor: int) -> None:
    """Make vLLM choose as on a GPU of this compute capability, with what its releases bring."""
    sys.meta_path.insert(0, _NotCompiled())
    platforms: Any = importlib.import_module("vllm.platforms")
    capability = importlib.import_module("vllm.platforms.interface").DeviceCapability
    cuda = importlib.import_module("vllm.platforms.cuda")
    told = {
        "get_device_capability": capability(major, minor),
        "get_device_name": f"sm_{major}{minor}",
        "get_device_total_memory": 80 << 30,
        "num_compute_units": 132,
        "is_fully_connected": False,
        "log_warnings": None,
    }
    answers = {name: classmethod(_saying(value)) for name, value in told.items()}
    platforms.current_platform = type("Pretended", (cuda.CudaPlatformBase,), answers)()
    operators = importlib.import_module("vllm._custom_ops")
    for name, supports in _SUPPORTED.items():
        setattr(operators, name, supports)
    _say_present("vllm.utils.flashinfer", lambda name: name.startswith("has_flashinfer"))
    _say_present("vllm.utils.import_utils", {"has_deep_gemm", "has_cutedsl"}.__contains__)
    for name in ("vllm.triton_utils.importing", "vllm.triton_utils"):
        importlib.import_module(name).HAS_TRITON = True  # type: ignore[attr-defined]


def _say_present(module: str, is_meant: Callable[[str], bool]) -> None:
    found = importlib.import_module(module)
    for name in [n for n in dir(found) if is_meant(n) and "b12x" not in n]:
        setattr(found, name, lambda *_, **__: True)


def _saying(value: object) -> Callable[..., object]:
    def say(*given: object, **named: object) -> object:
        del given, named
        return value

    return say


class _NotCompiled(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in place of what is compiled for GPUs: selections only import them."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        first, _, rest = fullname.partition(".")
        is_meant = first in {"pynvml", "flashinfer"} or rest == "vllm_flash_attn"
        is_compiled = first == "vllm" and rest.startswith(("_C", "_moe_C", "_flashmla", "_qutlass"))
        if not is_meant and not is_compiled:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = _anything  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        del module


def _anything(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    return _saying(None)


if __name__ == "__main__":
    sys.exit(_main())
