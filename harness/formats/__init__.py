"""Number formats: pure tensor functions, one file a format. Importing this needs no torch."""

from harness.formats.format import INPUT_TENSORS, NO_EXPONENT, Format
from harness.formats.known import get_format, has_input_scale, known_formats, stored_format
from harness.formats.schemes import Scheme, get_scheme, known_schemes, scheme_of

__all__ = [
    "INPUT_TENSORS",
    "NO_EXPONENT",
    "Format",
    "Scheme",
    "get_format",
    "get_scheme",
    "has_input_scale",
    "known_formats",
    "known_schemes",
    "scheme_of",
    "stored_format",
]
