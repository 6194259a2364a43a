"""What kernels compute of what a checkpoint declares, by their names.

Source: vLLM 0.25.0 and 0.32.0, model_executor/kernels/linear/__init__.py,
model_executor/layers/fused_moe/oracle/{nvfp4,fp8}.py; measured on a H200 and on CPU.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from harness.engines.algorithms import ALGORITHMS
from harness.engines.demands import Demands

_IGNORED = re.compile(r"unquantized|^cpu_?unfused|^none$", re.IGNORECASE)
"""Kernels of layers that are not quantized: they compute no declared part."""
_WEIGHTS_ONLY = re.compile(r"marlin|humming|a16|fbgemm_wo", re.IGNORECASE)
_WEIGHTS_AND_INPUTS = re.compile(
    r"emulation|cutlass|flashinfer|trtllm|cutedsl|b12x|fbgemm|triton|torch|deepgemm|cpu",
    re.IGNORECASE,
)


_MARKS = {"nvfp4": "fp4", "mxfp4": "fp4", "mxfp8": "mxfp8", "fp8": "fp8"}
"""What is in a kernel's name, by the format of weights that it is for."""


def unnamed_kernels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the kernels of which it is not known what they round."""
    known = (_IGNORED, _WEIGHTS_ONLY, _WEIGHTS_AND_INPUTS)
    return tuple(name for name in names if not any(one.search(name) for one in known))


def exercised(demands: Demands, kernels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return what the kernels of a server compute of what a checkpoint declares.

    Inputs count only if every kernel that could round them does.

    Args:
        demands: what is declared.
        kernels: names of those chosen, by `linear`, `experts` and `kv_cache`.
    """
    computed = [
        (ALGORITHMS[one], _computes(_of_format(kernels[part], one, len(algorithms))))
        for part, algorithms in (("linear", demands.linears), ("experts", demands.experts))
        for one in sorted(algorithms)
    ]
    missing = {f"weights:{a.weights}" for a, done in computed if "weights" not in done}
    missing |= {f"inputs:{a.inputs}" for a, done in computed if "inputs" not in done}
    if not any((demands.kv or "") in name for name in kernels["kv_cache"]):
        missing.add(f"kv:{demands.kv}")
    return tuple(part for part in demands.declared if part not in missing)


def _of_format(names: Sequence[str], algorithm: str, num_algorithms: int) -> Sequence[str]:
    """Return the kernels of one algorithm among several that share them."""
    mark = _MARKS.get(ALGORITHMS[algorithm].weights, "")
    own = [name for name in names if mark in name.lower()]
    return own if own and num_algorithms > 1 else names


def _computes(kernels: Iterable[str]) -> frozenset[str]:
    """Return what quantized kernels compute: `weights`, `inputs`.

    A kernel of an unknown name is believed to do no more than it must to answer at all: weights.
    """
    quantized = [name for name in kernels if not _IGNORED.search(name)]
    if not quantized:
        return frozenset()
    rounds_inputs = all(
        _WEIGHTS_AND_INPUTS.search(name) and not _WEIGHTS_ONLY.search(name) for name in quantized
    )
    return frozenset({"weights", "inputs"} if rounds_inputs else {"weights"})


def computes_inputs(kernel: str) -> bool:
    """Return whether a kernel rounds its inputs as declared; one of an unknown name does not."""
    return "inputs" in _computes([kernel])
