"""Files and texts that others wrote, read within stated bounds (`bounds`)."""

from harness.reading import bounds
from harness.reading.json_texts import (
    JsonLine,
    iter_json_lines,
    read_json,
    read_json_object,
    read_json_object_text,
    read_json_text,
)
from harness.reading.opened import as_utf8, open_regular, read_bytes, read_utf8, readable
from harness.reading.patterns import Refused, compiled, fits
from harness.reading.refusing import refused_as
from harness.reading.templates import Chat, Raised, render_chats
from harness.reading.values import refuse_beyond
from harness.reading.weights import (
    DTYPE_BITS,
    StoredTensor,
    WeightsHeader,
    examine_weights,
    parse_weights_header,
    read_weights_header,
)
from harness.reading.yaml_texts import (
    FunctionName,
    NamedFunction,
    read_yaml_documents,
    read_yaml_file,
    read_yaml_mapping,
    read_yaml_text,
    read_yaml_with_functions,
)

__all__ = [
    "DTYPE_BITS",
    "Chat",
    "FunctionName",
    "JsonLine",
    "NamedFunction",
    "Raised",
    "Refused",
    "StoredTensor",
    "WeightsHeader",
    "as_utf8",
    "bounds",
    "compiled",
    "examine_weights",
    "fits",
    "iter_json_lines",
    "open_regular",
    "parse_weights_header",
    "read_bytes",
    "read_json",
    "read_json_object",
    "read_json_object_text",
    "read_json_text",
    "read_utf8",
    "read_weights_header",
    "read_yaml_documents",
    "read_yaml_file",
    "read_yaml_mapping",
    "read_yaml_text",
    "read_yaml_with_functions",
    "readable",
    "refuse_beyond",
    "refused_as",
    "render_chats",
]
