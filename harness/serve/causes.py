"""Known causes of a server's death, by what its log says, each with what to do about it.

The first that matches wins, so the specific ones come first. Sources: vLLM 0.25.0 and 0.32.0,
their exceptions; texts of torch, the loader of shared libraries and the kernel.
"""

import re
from dataclasses import dataclass

from harness.engines import SETUP
from harness.errors import ReasonCode

_KILLED = 128 + 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why a server died."""

    id: str
    pattern: re.Pattern[str]
    reason: ReasonCode
    hint: str


def _cause(name: str, pattern: str, reason: ReasonCode, hint: str) -> Cause:
    return Cause(id=name, pattern=re.compile(pattern), reason=reason, hint=hint)


CAUSES: tuple[Cause, ...] = (
    _cause(
        "plugin-refused",
        r"harness_vllm: ",
        ReasonCode.PREREQUISITE_MISSING,
        "What keeps the server safe has no place in this vLLM; "
        f"install one that was tested with {SETUP}.",
    ),
    _cause(
        "library-missing",
        r"ImportError: \S+: cannot open shared object file",
        ReasonCode.PREREQUISITE_MISSING,
        "A system library is missing; for libnuma.so.1 install the package libnuma1.",
    ),
    _cause(
        "torchvision-build",
        r"operator torchvision::nms does not exist",
        ReasonCode.PREREQUISITE_MISSING,
        f"torchvision does not fit this torch; remove it, or make the environment with {SETUP}.",
    ),
    _cause(
        "no-vllm",
        r"No module named '?vllm|ModuleNotFoundError: No module named",
        ReasonCode.PREREQUISITE_MISSING,
        f"vLLM's environment is incomplete; make it with {SETUP}.",
    ),
    _cause(
        "scale-not-loaded",
        r"weight_scale for layer .{0,200} was never loaded",
        ReasonCode.SCALE_MISSING,
        "The checkpoint lacks scales that it declares; export it again.",
    ),
    _cause(
        "weights-not-loaded",
        r"weights were not initialized from checkpoint",
        ReasonCode.LOAD_MISMATCH,
        "The checkpoint lacks tensors that the model needs; 'harness verify' names them.",
    ),
    _cause(
        "out-of-memory",
        r"CUDA out of memory|torch\.OutOfMemoryError|DefaultCPUAllocator: (can't|not enough)"
        r"|exceeds available Mamba cache blocks"
        r"|No available memory for the cache blocks|larger than the available KV cache memory"
        r"|is less than desired \S*\s*(GPU|CPU)? ?memory utilization|Cannot allocate memory"
        r"|To serve at least one request with the model's max seq len"
        r"|Not enough memory\. Please try to increase \S+mem-fraction-static",
        ReasonCode.OUT_OF_MEMORY,
        "Memory ran out; free some, or spread the model with --tensor-parallel-size.",
    ),
    _cause(
        "missing-processor",
        r"Can't load (image|video|feature) (processor|extractor)|preprocessor_config\.json",
        ReasonCode.ENGINE_FAILED,
        "The checkpoint lacks its processor files; copy preprocessor_config.json and "
        "video_preprocessor_config.json from the source model.",
    ),
    _cause(
        "unsupported-format",
        r"Failed to find a kernel that can implement|MoE backend supports the deployment"
        r"|does not support the deployment configuration|Unsupported \S+ MoE backend"
        r"|Unsupported ModelOpt|Unknown quantization method|is not supported for \S+ MoE"
        r"|quantization is (currently )?not supported|Unknown ModelOpt quantization",
        ReasonCode.UNSUPPORTED_FORMAT,
        "This vLLM has no kernel for the checkpoint's format, or for a backend that was asked "
        "for with --engine-arg.",
    ),
    _cause(
        "tensor-does-not-fit",
        r"assert param_data\.shape == loaded_weight\.shape|The size of tensor a \(\d+\) must match",
        ReasonCode.LOAD_MISMATCH,
        "A tensor of the checkpoint does not fit the engine's parameter: it takes the layer for "
        "quantized otherwise, or not at all.",
    ),
    _cause(
        "port-in-use",
        r"[Aa]ddress already in use",
        ReasonCode.ENGINE_FAILED,
        "Another process took the port; type the command again.",
    ),
    _cause(
        "bad-argument",
        r"unrecognized arguments:|error: argument |invalid choice:",
        ReasonCode.BAD_USAGE,
        "This vLLM does not know an argument; look at --engine-arg.",
    ),
    _cause(
        "model-unknown",
        r"failed to be inspected|are not supported for now|does not recognize this architecture",
        ReasonCode.ENGINE_FAILED,
        "This vLLM does not know the model, or lacks a package that the model needs.",
    ),
)
_LACK_OF_MEMORY = _cause(
    "killed",
    r"",
    ReasonCode.OUT_OF_MEMORY,
    "It was killed with SIGKILL, as Linux does when memory runs out; free some.",
)


_CHILD_FAILED = "Received sigquit from a child process"
"""SGLang's server kills itself when one of its processes fails: that is no lack of memory."""


def find_cause(log: str, status: int | None) -> Cause | None:
    """Return the known cause of a death; None where there is none.

    Args:
        log: the end of the server's log.
        status: the server's; 128 + signal where one ended it.
    """
    for cause in CAUSES:
        if cause.pattern.search(log):
            return cause
    return _LACK_OF_MEMORY if status == _KILLED and _CHILD_FAILED not in log else None
