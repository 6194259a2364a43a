"""What attributes of Model-Optimizer's quantizers are in the words of harness.formats.

Source: nvidia-modelopt 0.47.0, torch/quantization/config.py, `QuantizerAttributeConfig`.
"""

from collections.abc import Hashable, Mapping, Sequence
from reprlib import Repr

from harness.artifacts import KvFormat

_E4M3, _E2M1, _E8M0 = "e4m3", "e2m1", "e8m0"
_DEFAULTS: Mapping[str, object] = {
    "enable": True,
    "axis": None,
    "fake_quant": True,
    "unsigned": False,
    "narrow_range": False,
    "learn_amax": False,
    "type": "static",
    "block_sizes": None,
    "bias": None,
    "trt_high_precision_dtype": "Float",
    "calibrator": "max",
    "rotate": False,
    "pass_through_bwd": True,
    "backend": None,
    "backend_extra_args": None,
    "use_constant_amax": False,
    "constant_amax": None,
    "four_over_six": False,
}
"""Attributes, and the value that changes nothing."""
_SKIPPED = frozenset({"effective_bits"})
"""Used by a search alone."""

_Numbers = tuple[str, object, object, object]
"""Type of the numbers, axis, kind of scale, and blocks."""
_PER_32 = (("-1", 32), ("scale_bits", _E8M0), ("type", "dynamic"))
_PER_16 = (("-1", 16), ("scale_bits", _E4M3), ("type", "dynamic"))
_CHOSEN_16 = (("-1", 16), ("scale_bits", _E4M3), ("type", "static"))
_FOUR_OR_SIX_16 = (("-1", 16), ("four_over_six", True), ("scale_bits", _E4M3), ("type", "static"))
_KNOWN: Mapping[str, Mapping[_Numbers, str]] = {
    "weight": {
        (_E2M1, None, "static", _PER_16): "nvfp4",
        (_E2M1, None, "static", _CHOSEN_16): "nvfp4",
        (_E2M1, None, "static", _FOUR_OR_SIX_16): "nvfp4",
        (_E4M3, None, "static", None): "fp8",
        (_E4M3, 0, "static", None): "fp8_channel",
        (_E4M3, None, "static", (("-1", 128), ("-2", 128))): "fp8_block",
        (_E4M3, None, "static", _PER_32): "mxfp8",
        (_E2M1, None, "static", _PER_32): "mxfp4",
    },
    "input": {
        (_E2M1, None, "static", _PER_16): "nvfp4",
        (_E4M3, None, "static", None): "fp8",
        (_E4M3, None, "dynamic", (("-1", None),)): "fp8_token",
        (_E4M3, None, "static", _PER_32): "mxfp8",
        (_E2M1, None, "static", _PER_32): "mxfp4",
    },
}
_ORDER = ("num_bits", "block_sizes", "axis", "type")
"""In which a part that fits no format is looked for."""


_SHORT = Repr()
_SHORT.maxother = _SHORT.maxstring = 60


def repr_of(value: object) -> str:
    """Return a value as it is written, cut short whatever is in it."""
    return _SHORT.repr(value)


class Problem(Exception):  # noqa: N818 -- becomes an error of a class of its own
    """A key that has no counterpart here."""

    def __init__(self, *, key: str, what: str, supported: str) -> None:
        super().__init__(key)
        self.key, self.what, self.supported = key, what, supported


def format_of(cfg: object, kind: str, where: str) -> str:
    """Return the name in harness.formats of what a quantizer of `kind` does.

    Raises:
        Problem: with the first attribute that no format has.
    """
    values = _values(cfg, where)
    for key, value in values.items():
        if key not in _ORDER and value != _DEFAULTS.get(key):
            raise Problem(
                key=f"{where}.{key}",
                what=repr_of(value),
                supported=f"Supported: {_listed(kind)}.",
            )
    numbers = _numbers(values)
    if numbers in _KNOWN[kind]:
        return _KNOWN[kind][numbers]
    raise Problem(
        key=f"{where}.{_unlike(values, numbers, kind)}",
        what="the value",
        supported=_supported(kind),
    )


def block_scales_of(cfg: object) -> str:
    """Return how the scales of a weight's blocks come about: `dynamic`, `static`, `four_over_six`.

    The peer's algorithms choose those that are static, and leave the others as they are.
    """
    sizes = cfg.get("block_sizes") if isinstance(cfg, dict) else None
    if not isinstance(sizes, dict):
        return "dynamic"
    return "four_over_six" if sizes.get("four_over_six") else str(sizes.get("type", "static"))


def kv_format_of(cfg: object, where: str) -> KvFormat:
    """Return how keys and values are stored.

    Raises:
        Problem: as `format_of`.
    """
    values = dict(_values(cfg, where))
    is_cast = values.pop("use_constant_amax", False) is True
    found = format_of(values, "input", where)
    kept = {("fp8", False): KvFormat.FP8, ("fp8", True): KvFormat.FP8_CAST}
    kept |= {("nvfp4", False): KvFormat.NVFP4, ("nvfp4", True): KvFormat.NVFP4_CAST}
    if (found, is_cast) not in kept:
        known = f"Supported of keys and values: {', '.join(KvFormat)}."
        raise Problem(key=f"{where}.num_bits", what=f"'{found}'", supported=known)
    return kept[found, is_cast]


def _values(cfg: object, where: str) -> Mapping[str, object]:
    values = cfg if isinstance(cfg, dict) else {}
    for key in values:
        if key not in _DEFAULTS and key not in (*_SKIPPED, "num_bits"):
            known = ", ".join(("num_bits", *_DEFAULTS))
            raise Problem(key=f"{where}.{key}", what="the key", supported=f"Supported: {known}.")
    return {key: value for key, value in values.items() if key not in _SKIPPED}


def _numbers(values: Mapping[str, object]) -> _Numbers:
    return (
        str(_spelled(values.get("num_bits"))),
        plain(values.get("axis")),
        plain(values.get("type", "static")),
        _blocks(values.get("block_sizes")),
    )


def plain(value: object) -> object:
    """Return a value that can be looked up, or its text."""
    return value if isinstance(value, Hashable) else repr_of(value)


def _spelled(bits: object) -> object:
    """Return a float's type as `e4m3`, from that or from (4, 3)."""
    if isinstance(bits, str):
        return bits.lower()
    if isinstance(bits, Sequence) and len(bits) == 2:  # noqa: PLR2004  exponent, mantissa
        return f"e{bits[0]}m{bits[1]}"
    return bits


def _blocks(sizes: object) -> object:
    """Return sizes of blocks by dimension, in one order; None where there are none."""
    if not isinstance(sizes, dict):
        return plain(sizes)
    spelled = {str(key): plain(value) for key, value in sizes.items()}
    if "scale_bits" in sizes:
        spelled["scale_bits"] = plain(_spelled(sizes["scale_bits"]))
    return tuple(sorted(spelled.items(), key=lambda one: one[0]))


def _unlike(values: Mapping[str, object], numbers: _Numbers, kind: str) -> str:
    """Return the first attribute that none of the formats has which fit in those before it."""
    given = dict(zip(("num_bits", "axis", "type", "block_sizes"), numbers, strict=True))
    fitting = [
        dict(zip(("num_bits", "axis", "type", "block_sizes"), one, strict=True))
        for one in _KNOWN[kind]
    ]
    for key in _ORDER:
        left = [one for one in fitting if one[key] == given[key]]
        if not left:
            return f"{key}: {repr_of(values.get(key))}"
        fitting = left
    return "num_bits"


def _listed(kind: str) -> str:
    return ", ".join(dict.fromkeys(_KNOWN[kind].values()))


def _supported(kind: str) -> str:
    return f"Supported of {kind}s: the numbers of {_listed(kind)}."
