"""What SGLang makes of each algorithm of modelopt's layout, by version: read from its sources.

A record, not a permission: what a version registers is asked of it (serve/sglang/questions.py),
and a version that is newer than all of these is taken for the newest. What is here is what asking
cannot show, since SGLang answers yes to it: its FP8 method took every algorithm with FP8 in its
name, its mixed method leaves a layer whose algorithm it does not know as if it were unquantized,
and its Qwen3.5 built attention without quantization under one method.

Source: sglang 0.5.9 to 0.5.23 (15 releases), layers/quantization/modelopt_quant.py,
models/qwen3_5.py, plugins/; the rows of 0.5.15 were seen on a H200 (docs/engines.md).
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.artifacts import MIXED
from harness.engines.algorithms import ALGORITHMS, MODELOPT
from harness.engines.demands import Demands
from harness.engines.foretold import EXPERTS, LINEAR, Fate, Foretold
from harness.errors import PrerequisiteError, ReasonCode

Version = tuple[int, ...]
TURNS = ("0.5.9", "0.5.13", "0.5.15", "0.5.17", "0.5.18", "0.5.20", "0.5.23")
"""Releases with which something of this changed, and the newest that was read."""
FLAGS: Mapping[str, str] = {
    "NVFP4": "modelopt_fp4",
    "W4A16_NVFP4": "modelopt_fp4",
    "FP8": "modelopt_fp8",
    MIXED: "modelopt_mixed",
}
"""`--quantization` by the scheme of a checkpoint."""
_ALONE: Mapping[str, Version] = {"NVFP4": (0, 5, 9), "FP8": (0, 5, 9), "W4A16_NVFP4": (0, 5, 19)}
_IN_MIXED: Mapping[str, Version] = {
    "NVFP4": (0, 5, 10),
    "FP8": (0, 5, 10),
    "W4A16_NVFP4": (0, 5, 15),
    "MXFP8": (0, 5, 17),
    "FP8_PB_WO": (0, 5, 20),
}
"""First version that computes an algorithm, as the only one of a checkpoint or one of several."""
_KV = frozenset({"fp8"})
_EXACT_FP8: Version = (0, 5, 18)
"""Before it every algorithm with FP8 in its name is read as one scale a tensor."""
_MARLIN: Version = (0, 5, 13)
"""Before it NVFP4 needs a Blackwell GPU; from it on older ones compute with unrounded inputs."""
_ONE_SCALE_FOR_SHARDS: Version = (0, 5, 11)
"""Before it the loader splits the one scalar of a linear attention's q, k and v, and fails."""
_QUANTIZED_ATTENTION: Version = (0, 5, 17)
"""Before it Qwen3.5's attention is built unquantized under modelopt_fp4: its files do not fit."""
_KEPT_KV_SCALES: Version = (0, 5, 17)
"""Before it Qwen3.5's loader leaves out the scales of keys and values without a word."""
_BLACKWELL, _AMPERE, _ADA = (10, 0), (8, 0), (8, 9)
_QWEN3_5 = re.compile(r"^Qwen3_5")
_RELEASE = re.compile(r"\d+")


class Place(NamedTuple):
    """An SGLang on a GPU."""

    version: str
    capability: tuple[int, int] = (0, 0)
    """Compute capability; (0, 0) where it is not known."""
    methods: frozenset[str] | None = None
    """Quantization methods that it registers; None where it could not say."""

    @property
    def release(self) -> Version:
        """Return the numbers of the version; of a build without numbers the highest."""
        found = tuple(map(int, _RELEASE.findall(self.version.partition("+")[0])[:3]))
        return found if len(found) > 1 else (1 << 30,)


def sglang_flag(demands: Demands) -> str | None:
    """Return `--quantization` for what a checkpoint declares; None where nothing is quantized."""
    return FLAGS.get(demands.scheme) if demands.algorithms else None


def foretell_sglang(demands: Demands, place: Place) -> tuple[Foretold, ...]:
    """Return what becomes of the layers that a checkpoint demands; of modelopt's layout alone."""
    if demands.layout != MODELOPT:
        return ()
    asked = [(name, LINEAR) for name in sorted(demands.linears)]
    asked += [(name, EXPERTS) for name in sorted(demands.experts)]
    return tuple(_foretell(demands, place, name, layers) for name, layers in asked)


def refuse_unserved(demands: Demands, place: Place) -> None:
    """Refuse what SGLang does not compute as it is declared, before anything is made.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    for problem in _problems(demands, place):
        message = f"SGLang {place.version} {problem}"
        raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)


def _foretell(demands: Demands, place: Place, algorithm: str, layers: str) -> Foretold:
    is_mixed = demands.scheme == MIXED
    since = (_IN_MIXED if is_mixed else _ALONE).get(algorithm)
    fate, why, kernel = Fate.LOADED, "", ""
    if since is None or place.release < since:
        fate, why = _otherwise(place, algorithm, is_mixed=is_mixed)
    elif reason := _unfit(demands, place, algorithm, layers):
        fate, why = Fate.REFUSED, reason
    else:
        kernel = _kernel(place, algorithm)
    parts = ALGORITHMS.get(algorithm)
    inputs = ""
    if kernel and parts is not None and parts.inputs is not None:
        inputs = "hidden" if kernel == "marlin" else "computed"
    return Foretold(
        algorithm=algorithm, layers=layers, fate=fate, kernel=kernel, inputs=inputs, why=why
    )


def _otherwise(place: Place, algorithm: str, *, is_mixed: bool) -> tuple[Fate, str]:
    """Return what becomes of an algorithm that a version does not compute."""
    if is_mixed:
        return Fate.MISREAD, "a layer of it is built as if it were not quantized"
    if algorithm.startswith("FP8") and place.release < _EXACT_FP8:
        return Fate.MISREAD, "its FP8 method reads it as one scale a tensor"
    return Fate.REFUSED, "its modelopt methods do not know it"


def _unfit(demands: Demands, place: Place, algorithm: str, layers: str) -> str:
    """Return why a version fails on layers of an algorithm that it knows; empty if it does not."""
    parts = ALGORITHMS[algorithm]
    least = {"nvfp4": _AMPERE if place.release >= _MARLIN else _BLACKWELL, "fp8": _ADA}
    needed = least.get(parts.weights, (0, 0))
    if (0, 0) < place.capability < needed:
        return f"it needs compute capability {needed[0]}.{needed[1]}"
    if not _is_qwen3_5(demands) or layers == EXPERTS or algorithm not in demands.attention:
        return ""
    if sglang_flag(demands) == FLAGS["NVFP4"] and place.release < _QUANTIZED_ATTENTION:
        return "it builds this model's attention unquantized, and the files do not fit"
    if place.release < _ONE_SCALE_FOR_SHARDS:
        return "it splits the one scale of a layer's shards, and fails"
    return ""


def _is_qwen3_5(demands: Demands) -> bool:
    return any(_QWEN3_5.match(name) for name in demands.architectures)


def _kernel(place: Place, algorithm: str) -> str:
    if ALGORITHMS[algorithm].weights != "nvfp4":
        return "cutlass or triton"
    return "marlin" if (0, 0) < place.capability < _BLACKWELL else "cutlass or flashinfer"


def _problems(demands: Demands, place: Place) -> Iterator[str]:
    if not demands.algorithms:
        return
    if demands.layout != MODELOPT:
        yield (
            f"is served here with modelopt's layout only, and this is {demands.layout}'s. Use "
            "--engine vllm."
        )
        return
    for one in foretell_sglang(demands, place):
        if one.fate is not Fate.LOADED:
            yield (
                f"does not compute '{one.algorithm}' ({one.layers}) as it is declared: {one.why}. "
                "Use --engine vllm, or another format."
            )
    flag = sglang_flag(demands)
    if flag is not None and place.methods is not None and flag not in place.methods:
        yield f"registers no method '{flag}'; it has {', '.join(sorted(place.methods))[:300]}."
    if demands.kv_calibrated and _is_qwen3_5(demands) and place.release < _KEPT_KV_SCALES:
        yield (
            "drops this model's scales of keys and values without a word. 'harness quantize "
            "--kv-cache-qformat fp8_cast' makes a checkpoint that needs none."
        )
    if demands.kv is not None and demands.kv not in _KV:
        yield (
            f"is not known to keep keys and values in {demands.kv.upper()}. 'harness quantize "
            "--kv-cache-qformat none' makes a checkpoint without."
        )
