"""What an engine is known not to load: asked before anything is calibrated.

What was seen to load is not asked again. Else an algorithm must have a name in that version, a
kernel on its platform, and where the kernel is the plugin's, the plugin's part must fit. Where the
engine could not say, nothing is refused: it is observed when the engine has started.
"""

from collections.abc import Iterator
from itertools import chain

from harness.artifacts import MIXED
from harness.engines.algorithms import (
    ALGORITHMS,
    COMPRESSED,
    LOADED,
    MODELOPT,
    NATIVE_FP8,
    NATIVE_MXFP4,
)
from harness.engines.capabilities import Capability, Schemes
from harness.engines.demands import Demands
from harness.engines.foretold import EXPERTS, Fate, foretell_all
from harness.errors import PrerequisiteError, ReasonCode

_METHODS = {
    COMPRESSED: ("compressed-tensors",),
    NATIVE_FP8: ("fp8",),
    NATIVE_MXFP4: ("mxfp4", "gpt_oss_mxfp4"),
}
"""What registers a layout as a whole; modelopt's registers its algorithms one by one."""
_KERNELS = {
    **dict.fromkeys(("NVFP4", "W4A16_NVFP4"), "nvfp4"),
    **dict.fromkeys(("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PER_TENSOR_DYNAMIC"), "fp8"),
    **dict.fromkeys(("FP8_PB_WO", "FP8_PER_BLOCK"), "fp8_block"),
    **dict.fromkeys(("W8A16_FP8", "W8A16_FP8_PER_CHANNEL"), "wfp8a16"),
    "MXFP8": "mxfp8",
    "MXFP4": "mxfp4",
}
"""Which list of linear kernels an algorithm is served from."""
_OF_THE_PLUGIN = {"nvfp4": ("cpu-linear-nvfp4", "cpu-experts-nvfp4")}
"""Adapters that give a CPU its only kernels, for linear layers and for routed experts."""
_FP8 = "cpu-linear-fp8"
"""The one that gives it another kernel beside vLLM's own, of FP8 with one scale a tensor."""


def refuse_unsupported(capability: Capability, demands: Demands) -> None:
    """Refuse what this vLLM cannot load, before anything is calibrated.

    Raises:
        PrerequisiteError: with the scheme and the reason `unsupported-format`, or with an
            architecture that this vLLM has no code for.
    """
    _refuse_unknown_model(capability, demands)
    problem = next(chain(_problems(capability, demands), _foretold(capability, demands)), None)
    if problem is not None:
        message = f"{capability.name} {problem}"
        raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)


def _refuse_unknown_model(capability: Capability, demands: Demands) -> None:
    known = [capability.abilities.knows(name) for name in demands.architectures]
    if known and all(one is False for one in known):
        count = len(capability.abilities.architectures or ())
        message = (
            f"{capability.name} has no code for '{demands.architectures[0]}': it is none of the "
            f"{count} architectures that it knows, nor one that transformers has there. Name a "
            "newer one with --vllm PATH."
        )
        raise PrerequisiteError(message)


def _problems(capability: Capability, demands: Demands) -> Iterator[str]:
    seen = capability.schemes.get(demands.layout, Schemes(everywhere=frozenset()))
    for algorithm in sorted(demands.algorithms):
        if algorithm in seen.everywhere:
            continue
        if algorithm in seen.dense_only:
            if algorithm in demands.experts:
                yield (
                    f"loads scheme '{algorithm}' of {demands.layout} for dense layers, not "
                    "for routed experts. Quantize them otherwise, or not."
                )
            continue
        yield from _not_loaded(capability, demands, algorithm)
    quant_algos = capability.abilities.quant_algos or {MIXED}
    if demands.layout == MODELOPT and demands.scheme == MIXED and MIXED not in quant_algos:
        yield f"has no scheme '{MIXED}' of modelopt, with which layers have several."
    if demands.kv is not None and demands.kv not in capability.kv:
        yield (
            f"is not known to keep keys and values in {demands.kv.upper()}. 'harness "
            "quantize --kv-cache-qformat none' makes a checkpoint without."
        )


def _foretold(capability: Capability, demands: Demands) -> Iterator[str]:
    """Yield what would be refused at start, or read as something else, by the engine's own code."""
    for one in foretell_all(capability.abilities.foretold or {}, demands):
        if one.fate in {Fate.REFUSED, Fate.MISREAD}:
            layers = "routed experts" if one.layers == EXPERTS else "linear layers"
            yield (
                f"does not load {layers} of {one.algorithm} as they are: {one.why}. Quantize them "
                "otherwise, or not; 'harness doctor --format FORMAT' shows what loads where."
            )


def _not_loaded(capability: Capability, demands: Demands, algorithm: str) -> Iterator[str]:
    """Yield why an algorithm that was not seen to load is known not to."""
    layout = demands.layout
    registered = _registered(capability, layout)
    if registered is not None and algorithm not in registered:
        known = ", ".join(sorted(registered)) or "none"
        yield f"has no scheme '{algorithm}' of {layout}. Of that layout it has: {known}."
    else:
        yield from _without_kernel(capability, demands, algorithm)


def _registered(capability: Capability, layout: str) -> frozenset[str] | None:
    """Return the algorithms of a layout that a version has names for; None if not known."""
    abilities = capability.abilities
    if layout == MODELOPT:
        return abilities.quant_algos
    if abilities.methods is None:
        return None
    is_there = any(name in abilities.methods for name in _METHODS.get(layout, ()))
    return LOADED.get(layout, frozenset()) if is_there else frozenset()


def _without_kernel(capability: Capability, demands: Demands, algorithm: str) -> Iterator[str]:
    abilities = capability.abilities
    weights = ALGORITHMS[algorithm].weights
    if capability.platform == "cpu" and weights in _OF_THE_PLUGIN:
        for adapter, algorithms in zip(
            _OF_THE_PLUGIN[weights], (demands.linears, demands.experts), strict=True
        ):
            if algorithm in algorithms and adapter in abilities.missing:
                yield (
                    f"computes '{algorithm}' on CPU with kernels of harness's plugin, and they do "
                    f"not fit it: {adapter}: {abilities.missing[adapter]}."
                )
        return
    if capability.platform == "cpu" and algorithm == "FP8" and _FP8 in (abilities.adapters or ()):
        return
    kernels = (abilities.linear_kernels or {}).get(_KERNELS.get(algorithm, ""))
    if kernels is not None and not kernels and algorithm in demands.linears:
        yield f"has no kernel on this machine for scheme '{algorithm}' of {demands.layout}."
