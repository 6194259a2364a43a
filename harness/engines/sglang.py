"""What SGLang makes of each algorithm of modelopt's layout, by version: read from its sources.

Nothing here permits or forbids a version that is not named: what it registers is asked of it
(serve/sglang/questions.py). What is here is what asking cannot show, since SGLang answers yes: its
FP8 method takes every algorithm that has FP8 in its name for one scale a tensor, and its mixed
method leaves a layer of an algorithm that it does not know as if it were unquantized.

Source: sglang 0.5.10.post1, 0.5.15 and 0.5.23, layers/quantization/modelopt_quant.py,
fp4_utils.py, models/qwen3_5.py.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.artifacts import MIXED
from harness.engines.algorithms import MODELOPT
from harness.engines.demands import Demands
from harness.errors import PrerequisiteError, ReasonCode

FLAGS: Mapping[str, str] = {
    "NVFP4": "modelopt_fp4",
    "FP8": "modelopt_fp8",
    MIXED: "modelopt_mixed",
}
"""`--quantization` of a checkpoint whose layers all have one algorithm, or several."""
IN_MIXED = frozenset({"NVFP4", "W4A16_NVFP4", "FP8"})
"""Algorithms of single layers that the mixed method computes; the others it takes for none."""
KV = frozenset({"fp8"})
WEIGHT_ONLY_BELOW = (10, 0)
"""Compute capability under which NVFP4 is Marlin: inputs stay in 16 bits."""
LEAST_CAPABILITY: Mapping[str, tuple[int, int]] = {"NVFP4": (8, 0), "FP8": (8, 9)}


class Trap(NamedTuple):
    """Something that SGLang does without a word, and a user would not expect."""

    algorithm: str
    means: str


TRAPS: tuple[Trap, ...] = (
    Trap(
        "FP8_PB_WO",
        "is read by SGLang's FP8 method as one scale a tensor, since it looks for FP8 in the name",
    ),
    Trap(
        "FP8_PER_CHANNEL_PER_TOKEN",
        "is read by SGLang's FP8 method as one scale a tensor, since it looks for FP8 in the name",
    ),
    Trap("W4A16_NVFP4", "is computed by SGLang only in a checkpoint of several algorithms"),
    Trap("NVFP4_AWQ", "is refused by SGLang: its scales before a layer are not applied"),
    Trap("W4A8_NVFP4_FP8", "is refused by SGLang"),
    Trap("MXFP8", "has no method in SGLang's modelopt layout"),
)
PER_SHARD_SCALES_SINCE = "0.5.10"
"""First version that gives one scalar of a fused tensor to each of its shards; before it the
loader fails on a checkpoint with one scale for q, k and v, or for a linear attention's qkv."""


def sglang_flag(demands: Demands) -> str | None:
    """Return `--quantization` for what a checkpoint declares; None where nothing is quantized."""
    if not demands.algorithms:
        return None
    scheme = MIXED if demands.scheme == MIXED or len(demands.algorithms) > 1 else demands.scheme
    return FLAGS.get(scheme if scheme in FLAGS else next(iter(demands.algorithms)))


def refuse_unserved(
    demands: Demands, *, version: str, methods: frozenset[str] | None, capability: tuple[int, int]
) -> None:
    """Refuse what SGLang does not compute as it is declared, before anything is made.

    Args:
        demands: what a checkpoint declares.
        version: of SGLang.
        methods: those that it registers; None where it could not say.
        capability: compute capability of the GPU; (0, 0) where it is not known.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    for problem in _problems(demands, methods, capability):
        message = f"SGLang {version} {problem}"
        raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)


def _problems(
    demands: Demands, methods: frozenset[str] | None, capability: tuple[int, int]
) -> Iterator[str]:
    if not demands.algorithms:
        return
    if demands.layout != MODELOPT:
        yield (
            f"is served here with modelopt's layout only, and this is {demands.layout}'s. Use "
            "--engine vllm."
        )
        return
    flag = sglang_flag(demands)
    known = IN_MIXED if flag == FLAGS[MIXED] else frozenset(FLAGS)
    for algorithm in sorted(demands.algorithms - known):
        trap = next((one.means for one in TRAPS if one.algorithm == algorithm), None)
        yield (
            f"does not compute '{algorithm}'"
            + (
                f": it {trap}."
                if trap
                else f"; of this layout it computes {', '.join(sorted(known))}."
            )
        )
    if flag is not None and methods is not None and flag not in methods:
        yield f"registers no method '{flag}'; it has {', '.join(sorted(methods))[:300]}."
    if demands.kv is not None and demands.kv not in KV:
        yield (
            f"is not known to keep keys and values in {demands.kv.upper()}. 'harness quantize "
            "--kv-cache-qformat none' makes a checkpoint without."
        )
    for algorithm in sorted(demands.algorithms):
        least = LEAST_CAPABILITY.get(algorithm, (0, 0))
        if (0, 0) < capability < least:
            yield f"computes '{algorithm}' from compute capability {least[0]}.{least[1]} on."
