"""What an engine will do with a checkpoint, known before anything is calibrated.

A vLLM is asked with its own code: which method and kernel it takes for a linear layer and for
routed experts of each algorithm, and for how many scales there is room (harness_vllm/foretell.py).
`kernels.json` keeps what `scripts/engine_kernels.py` was told by releases for GPUs of every
generation; an installed vLLM is asked itself.

Where the room for scales is not that of the files, the layer is not honoured: it would be read as
another algorithm. So does vLLM send routed experts of FP8_PB_WO and FP8_PER_CHANNEL_PER_TOKEN to
the method of one scale an expert.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import MIXED
from harness.engines.algorithms import ALGORITHMS, MODELOPT, READ
from harness.engines.demands import Demands
from harness.engines.kernels import computes_inputs

GENERATIONS: Mapping[str, str] = {
    "7.5": "Turing (T4)",
    "8.0": "Ampere (A100)",
    "8.6": "Ampere (A10, RTX 30)",
    "8.9": "Ada (L40S, RTX 40)",
    "9.0": "Hopper (H100, H200)",
    "10.0": "Blackwell (B200)",
    "10.3": "Blackwell (B300)",
    "12.0": "Blackwell (RTX 50, RTX PRO)",
    "12.1": "Blackwell (DGX Spark)",
}
"""GPUs by their compute capability."""
EXPORTED: tuple[str, ...] = (
    *sorted(READ[MODELOPT]),
    "NVFP4_AWQ",
    "NVFP4_SVD",
    "W4A8_AWQ",
    "W4A8_MXFP4_FP8",
    "INT8_SQ",
)
"""What Model-Optimizer writes as `quant_algo`; engines know a part of it."""
LINEAR, EXPERTS = "linear", "experts"
_WIDTH = 2048
"""Rows and columns of the weight that was asked about."""
_BLOCKS: Mapping[str, tuple[int, int]] = {
    "FP8": (_WIDTH, _WIDTH),
    "FP8_PB_WO": (128, 128),
    "FP8_PER_CHANNEL_PER_TOKEN": (1, _WIDTH),
}
"""Rows and columns that share a scale, of algorithms whose `group_size` does not say it."""
_LAYER = "model.layers.0.mlp"
_RECORD = Path(__file__).with_name("kernels.json")
Answer = Mapping[str, object]
Answers = Mapping[str, Mapping[str, Answer]]
"""By `question_of`, then by LINEAR and EXPERTS, as harness_vllm/foretell.py gives them."""


class Fate(StrEnum):
    """What becomes of a layer."""

    LOADED = "loaded"
    REFUSED = "refused"
    """The engine stops at start."""
    MISREAD = "misread"
    """It is read as another algorithm, or not as quantized at all."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Foretold:
    """What an engine will do with layers of one algorithm."""

    algorithm: str
    layers: str
    """LINEAR or EXPERTS."""
    fate: Fate
    kernel: str = ""
    inputs: str = ""
    """`computed`, `hidden` where the kernel does not round them as declared, or empty: none are."""
    why: str = ""


class Record(NamedTuple):
    """What releases said."""

    version: str
    answers: Answers


def question_of(algorithm: str, *, mixed: bool) -> str:
    """Return the key under which a declaration is asked about."""
    return f"{MIXED}/{algorithm}" if mixed else algorithm


def questions(algorithms: Iterable[str] = EXPORTED) -> dict[str, dict[str, object]]:
    """Return the declarations to ask about, as they stand in config.json, by `question_of`."""
    asked: dict[str, dict[str, object]] = {}
    for name in algorithms:
        known = ALGORITHMS.get(name)
        size = {} if known is None or known.group_size is None else {"group_size": known.group_size}
        entry: dict[str, object] = {"quant_algo": name, **size}
        plain: dict[str, object] = {"quant_method": "modelopt", "ignore": []}
        asked[question_of(name, mixed=False)] = {**plain, **entry}
        layers = (f"{_LAYER}.down_proj", f"{_LAYER}.experts", f"{_LAYER}.experts.0.down_proj")
        asked[question_of(name, mixed=True)] = {
            **plain,
            "quant_algo": MIXED,
            "quantized_layers": dict.fromkeys(layers, entry),
        }
    return asked


def foretell(answers: Answers, algorithm: str, *, layers: str, mixed: bool) -> Foretold:
    """Return what an engine that gave these answers does with layers of an algorithm."""
    answer = answers.get(question_of(algorithm, mixed=mixed), {}).get(layers, {})
    fate, why = _fate(answer, algorithm)
    kernel = str(answer.get("kernel", "")) if fate is Fate.LOADED else ""
    known = ALGORITHMS.get(algorithm)
    inputs = ""
    if kernel and known is not None and known.inputs is not None:
        inputs = "computed" if computes_inputs(kernel) else "hidden"
    return Foretold(
        algorithm=algorithm, layers=layers, fate=fate, kernel=kernel, inputs=inputs, why=why
    )


def foretell_all(answers: Answers, demands: Demands) -> tuple[Foretold, ...]:
    """Return what becomes of all that a checkpoint demands; modelopt's layout alone is asked."""
    if demands.layout != MODELOPT:
        return ()
    asked = [(name, LINEAR) for name in sorted(demands.linears)]
    asked += [(name, EXPERTS) for name in sorted(demands.experts)]
    return tuple(
        foretell(answers, name, layers=layers, mixed=demands.scheme == MIXED)
        for name, layers in asked
    )


def _fate(answer: Answer, algorithm: str) -> tuple[Fate, str]:
    if refused := answer.get("refused"):
        return Fate.REFUSED, str(refused)
    if "kernel" not in answer:
        return Fate.UNKNOWN, str(answer.get("unknown") or "it was not asked")
    method, found = answer.get("method"), answer.get("scales")
    if not found:
        return Fate.MISREAD, f"{method} leaves it unquantized"
    if (wanted := _num_scales(algorithm)) is None:
        return Fate.UNKNOWN, "harness does not know how its weights are scaled"
    if found == wanted:
        return Fate.LOADED, ""
    return Fate.MISREAD, f"{method} has room for {found} of the {wanted} scales of a matrix"


def _num_scales(algorithm: str) -> int | None:
    """Return how many scales the weight that was asked about has in the files."""
    known = ALGORITHMS.get(algorithm)
    if known is not None and known.group_size is not None:
        return _WIDTH * _WIDTH // known.group_size
    if algorithm not in _BLOCKS:
        return None
    rows, columns = _BLOCKS[algorithm]
    return _WIDTH * _WIDTH // (rows * columns)


def recorded_versions() -> tuple[str, ...]:
    """Return the releases of vLLM that were asked, the newest last."""
    return tuple(_record()["vllm"])


def recorded(version: str, capability: str) -> Record | None:
    """Return what a release said, or else the newest before it, of a GPU; None where none did."""
    at_most = [one for one in recorded_versions() if _ordered(one) <= _ordered(version)]
    if not at_most or capability not in GENERATIONS:
        return None
    texts, kept = _record()["answers"], _record()["vllm"][at_most[-1]][capability]
    answers = {
        question: {LINEAR: texts[linear], EXPERTS: texts[experts]}
        for question, (linear, experts) in kept.items()
    }
    return Record(at_most[-1], answers)


def _ordered(version: str) -> tuple[int, ...]:
    numbers = version.partition("+")[0].split(".")[:3]
    return tuple(int(n) for n in numbers if n.isdigit())


@cache
def _record() -> dict[str, dict]:  # type: ignore[type-arg]  # our own file
    found: dict[str, dict] = json.loads(_RECORD.read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return found
