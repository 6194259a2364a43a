"""What a folder demands of an engine, whoever made it: modelopt, llmcompressor or harness."""

from harness.errors import EngineError, PrerequisiteError, ReasonCode
from harness.models import Source
from harness.serve.declared import read_declared
from harness.serve.vllm.capabilities import Demands

_PACKED = frozenset({"U8", "F8_E4M3"})
_KV_SCALES = (".k_scale", ".v_scale", ".kv_scale")


def read_demands(source: Source) -> Demands:
    """Return what serving `source` asks of an engine: from its configuration and tensor names.

    Raises:
        PrerequisiteError: it declares what no engine is known to load.
        EngineError: its configuration files are malformed or contradict each other.
    """
    try:
        declared = read_declared(source)
    except EngineError as error:
        if error.reason is ReasonCode.UNSUPPORTED_FORMAT:
            raise PrerequisiteError(str(error), reason=error.reason) from error
        raise
    packed = [
        name
        for name, header in source.tensors.items()
        if header.dtype in _PACKED and "scale" not in name.rpartition(".")[2]
    ]
    # No server of ours loads the layers for speculative decoding.
    served = [name for name in packed if not name.startswith("mtp.")]
    return Demands(
        scheme=declared.scheme.name if declared.scheme is not None else "",
        kv_fp8=declared.kv_fp8,
        experts=any(_is_routed(name) for name in served),
        linears=any(not _is_routed(name) for name in served),
        layout=declared.layout,
        # Scales that were meant to be there count too: the engine would take 1 for them.
        kv_calibrated=declared.kv_calibrated
        or any(name.endswith(_KV_SCALES) for name in source.tensors),
    )


def _is_routed(name: str) -> bool:
    return ".experts." in name
