"""Number formats: pure tensor functions, one file a format. Importing this needs no torch."""

from harness.formats.format import INPUT_TENSORS, Format
from harness.formats.known import get_format, known_formats
from harness.formats.schemes import Scheme, get_scheme, scheme_of

__all__ = [
    "INPUT_TENSORS",
    "Format",
    "Scheme",
    "get_format",
    "get_scheme",
    "known_formats",
    "scheme_of",
]
