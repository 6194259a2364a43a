"""What TensorRT-LLM makes of a checkpoint, as far as its sources and documentation say.

It was never run here. Its PyTorch backend reads `hf_quant_config.json`, and where that is not there
the `quantization_config` of config.json; a `quant_algo` that is no member of its `QuantAlgo` ends
the start. So the members are asked of the version that is installed (serve/trtllm/probe.py), and
nothing is refused of which that says nothing.

Sources: NVIDIA/TensorRT-LLM, tensorrt_llm/_torch/model_config.py (load_modelopt_quant_config,
load_hf_quant_config), tensorrt_llm/quantization/mode.py (QuantAlgo), docs/source/features/
quantization.md (which GPUs), tensorrt_llm/serve (what its server answers).
"""

from collections.abc import Mapping

from harness.artifacts import MIXED
from harness.engines.algorithms import MODELOPT, NATIVE_FP8, NATIVE_MXFP4
from harness.engines.demands import Demands
from harness.errors import PrerequisiteError, ReasonCode

_NAMES: Mapping[str, tuple[str, ...]] = {
    "FP8_PB_WO": ("FP8_BLOCK_SCALES",),
    "FP8_PER_BLOCK": ("FP8_BLOCK_SCALES",),
    "MXFP4": ("W4A16_MXFP4", "W4A8_MXFP4_MXFP8", "W4A8_MXFP4_FP8"),
}
"""Its names of our algorithms, any of which will do; of the others the name is the same."""
_LAYOUTS: Mapping[str, frozenset[str] | None] = {
    MODELOPT: None,
    NATIVE_FP8: frozenset({"FP8_PER_BLOCK"}),
    NATIVE_MXFP4: frozenset({"MXFP4"}),
}
"""Whose spelling of tensors it reads, and which algorithms in it; None for all."""
_NEEDS_SM: Mapping[str, int] = {"NVFP4": 100, "W4A8_NVFP4_FP8": 100}
"""The first GPU generation that its documentation lists."""


def refuse_unread_by_trtllm(demands: Demands, known: frozenset[str]) -> None:
    """Refuse what the installed TensorRT-LLM has no name for, before anything is calibrated.

    Args:
        demands: what the checkpoint asks of it.
        known: members of its `QuantAlgo`; empty where they could not be found.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    problem = _unread(demands, known)
    if problem is not None:
        message = f"TensorRT-LLM cannot load it: {problem}. Choose another format or engine."
        raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)


def doubts_of_trtllm(demands: Demands, generation: int | None) -> tuple[str, ...]:
    """Return what its documentation does not list for a GPU, as clauses.

    Args:
        demands: what the checkpoint asks of it.
        generation: compute capability, such as 90; None where it is not known.
    """
    if generation is None:
        return ()
    return tuple(
        f"its documentation lists {name} from sm_{least} on, and this is sm_{generation}"
        for name in sorted(demands.algorithms)
        if generation < (least := _NEEDS_SM.get(name, 0))
    )


def _unread(demands: Demands, known: frozenset[str]) -> str | None:
    if not demands.algorithms and demands.kv is None:
        return None
    readable = _LAYOUTS.get(demands.layout, frozenset())
    if readable is not None and (odd := sorted(demands.algorithms - readable)):
        return f"nothing is known of its reading {odd[0]} in the layout of {demands.layout}"
    wanted = {name: _NAMES.get(name, (name,)) for name in sorted(demands.algorithms)}
    if demands.names_layers:
        wanted[MIXED] = (MIXED,)
    if demands.kv is not None:
        wanted[f"{demands.kv} for keys and values"] = (demands.kv.upper(),)
    unknown = [what for what, names in wanted.items() if known and not known.intersection(names)]
    return f"this version knows no {unknown[0]}" if unknown else None
