"""The unquantized model, which is quantized, or measured as a baseline."""

import logging
import re

from harness.artifacts import TensorHeader
from harness.engines import read_demands
from harness.errors import ModelError
from harness.models import Source, find_weights, ids_beyond_embedding, open_source

_log = logging.getLogger("harness.preflight")
_PLAIN = ("BF16", "F16", "F32", "F64")
_NARROW = ("F8_", "F6_", "F4")
"""How types begin that only quantized weights are stored in."""
_WEIGHT = re.compile(r"(^|[._])(weight|gate_up_proj|down_proj|weight_packed|qweight)$")
_SCALE = re.compile(
    r"(^|[._])(weight_scale(_inv|_2)?|input_scale|weight_global_scale|input_global_scale|qzeros|"
    r"[kv]_scale)$"
)


def open_unquantized(model: str, revision: str | None) -> Source:
    """Open the model that is to be quantized, or measured as a baseline.

    Raises:
        ModelError: it is no model that can be read, or is quantized.
    """
    source = open_source(model, revision=revision)
    _refuse_quantized(source)
    _refuse_unknown_tokens(source)
    for line in find_weights(source.path).stray_lines:
        _log.warning("model: in '%s', %s", model, line)
    return source


def _refuse_unknown_tokens(source: Source) -> None:
    """Refuse a model whose tokenizer or settings name tokens that it has no embedding for.

    Raises:
        ModelError: with the first of them.
    """
    if lines := ids_beyond_embedding(source.path, source.config, source.tensors):
        message = (
            f"'{source.name}' names tokens that it has no embedding for: {lines[0]}. Copy the "
            "model's own tokenizer and settings there, or download it again."
        )
        raise ModelError(message)


def _refuse_quantized(source: Source) -> None:
    """Refuse a model that is quantized, whether it says so or not.

    Raises:
        ModelError: with what says it.
    """
    sign = sign_of_quantization(source)
    if sign is not None:
        message = (
            f"'{source.name}' is quantized: {sign}. Name the unquantized model; 'harness gate "
            "CHECKPOINT --baseline MODEL' judges a quantized one."
        )
        raise ModelError(message)


def sign_of_quantization(source: Source) -> str | None:
    """Return what shows that a model is quantized: its configuration, else its tensors.

    What its makers publish in MXFP4 or in blocks of FP8 alone is no quantized copy of anything.
    """
    if source.packed:
        return None
    demands = read_demands(source)
    if demands.scheme or demands.kv:
        return f"its configuration declares {demands.scheme or 'a KV cache of fewer bits'}"
    return next(
        (
            f"'{name}' is stored as {header.dtype}"
            for name, header in source.tensors.items()
            if _is_quantized(name, header)
        ),
        None,
    )


def _is_quantized(name: str, header: TensorHeader) -> bool:
    if header.dtype.startswith(_NARROW) or _SCALE.search(name):
        return True
    return header.dtype not in _PLAIN and _WEIGHT.search(name) is not None
