"""Are the numbers ones that an engine can compute with?"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from statistics import median

from harness.artifacts import Check, Severity
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.layouts import DIVISORS, INPUT_SCALES, UNMEASURED_DIVISOR
from harness.verify.modules import expert_of, fused_groups, is_scale, leaf_of
from harness.verify.scan import Facts

_IMPLAUSIBLE = 1e-3
"""An input scale this many times smaller than the checkpoint's median is worth a look."""
_ENORMOUS = 1e5
"""And one this many times larger: real outliers stay far below."""
_LEAST_MIDDLE = 1e-7
"""Behind a norm the largest input is about 1 or more, so that the median scale is 4e-4 (NVFP4) or
2e-3 (FP8). Where it is thousands of times smaller, none was measured."""
_NOTHING = 2e-4
"""Where even the largest input scale of a projection is this much smaller, nothing was measured."""


def scales_finite(contents: Contents) -> Check:
    """Ask for NaN and infinity in scales, among them the E4M3 codes 0x7F and 0xFF."""
    return _about_scales(
        contents, "scales-finite", lambda f: f.num_non_finite, "hold NaN or infinity", "are finite"
    )


def scales_positive(contents: Contents) -> Check:
    """Ask for scales of zero or below, which turn a layer, or its inverse, to nothing."""
    return _about_scales(
        contents,
        "scales-positive",
        lambda f: f.num_not_positive,
        "hold zeros or negative values",
        "are positive",
    )


def scales_normal(contents: Contents) -> Check:
    """Ask for scales so small that one divided by them is infinite."""
    return _about_scales(
        contents,
        "scales-not-denormal",
        lambda f: f.num_denormal,
        "are denormal, so that their inverse may be infinite",
        "have a finite inverse",
    )


def _about_scales(
    contents: Contents, check: str, count: Callable[[Facts], int], bad: str, good: str
) -> Check:
    tensors = contents.tensors
    scales = [name for name in contents.facts if is_scale(name, tensors[name].dtype)]
    faults = [
        f"{name}, {number} value{'s' if number > 1 else ''}"
        for name in scales
        if (number := count(contents.facts[name]))
    ]
    return finding(
        check,
        faults,
        good=f"all {len(scales)} scale tensors {good}",
        bad=f"{len(faults)} of {len(scales)} scale tensors {bad}",
    )


def weights_finite(contents: Contents) -> Check:
    """Ask for NaN and infinity in all other tensors."""
    tensors = contents.tensors
    others = [name for name in contents.facts if not is_scale(name, tensors[name].dtype)]
    faults = [n for n in others if contents.facts[n].num_non_finite]
    return finding(
        "weights-finite",
        faults,
        good=f"{len(others)} weights hold neither NaN nor infinity",
        bad=f"{len(faults)} of {len(others)} weights hold NaN or infinity",
    )


def expert_global_scales_equal(contents: Contents) -> Check:
    """Ask whether gate and up of each expert share their global scale: engines keep one."""
    return _about_groups(
        contents,
        "expert-gate-up-scales-equal",
        role="global_scale",
        routed=True,
        severity=Severity.ERROR,
    )


def fused_global_scales_equal(contents: Contents) -> Check:
    """Ask the same of the layers outside experts that engines fuse."""
    return _about_groups(
        contents,
        "fused-scales-equal",
        role="global_scale",
        routed=False,
        severity=Severity.ERROR,
    )


def fused_input_scales_equal(contents: Contents) -> Check:
    """Ask whether fused layers, which read one input, share its scale; engines take the max."""
    return _about_groups(
        contents,
        "fused-input-scales-equal",
        role="input_scale",
        routed=False,
        severity=Severity.WARNING,
    )


def _about_groups(
    contents: Contents, check: str, *, role: str, routed: bool, severity: Severity
) -> Check:
    groups = [
        group
        for group in fused_groups(contents.modules)
        if (expert_of(group[0]) is not None) is routed and _values(contents, group, role)
    ]
    faults = [
        f"{' and '.join(group)} with {_listed(_values(contents, group, role))}"
        for group in groups
        if len(set(_values(contents, group, role))) > 1
    ]
    spelled = {leaf for group in groups for n in group if (leaf := _spelled(contents, n, role))}
    leaf = " or ".join(sorted(spelled)) or role
    return finding(
        check,
        faults,
        good=f"{len(groups)} groups of fused layers share their {leaf}",
        bad=f"{len(faults)} of {len(groups)} groups of fused layers have different {leaf}",
        severity=severity,
    )


def _values(contents: Contents, group: tuple[str, ...], role: str) -> list[float]:
    facts = (contents.facts.get(contents.tensor_of(n, _spelled(contents, n, role))) for n in group)
    return [f.high for f in facts if f is not None and math.isfinite(f.high)]


def _spelled(contents: Contents, module: str, role: str) -> str | None:
    layout = contents.layout_of(module)
    return layout.leaf(role) if layout else None


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def input_scales_plausible(contents: Contents) -> Check:
    """Ask for input scales that tell of a layer that saw no text.

    Such a scale is far from all others (llmcompressor writes what was in memory for an expert that
    got no token), or it is the constant that a library writes where it measured nothing. The
    yardstick is the median over kinds of layers of each kind's median, so
    that experts, which are the most, cannot move it by themselves.
    """
    scales = dict(input_scales(contents))
    middle = _middle(_by_kind(scales))
    faults = [
        f"{name} is {value:.3g}"
        for name, value in scales.items()
        if not _IMPLAUSIBLE * middle <= value <= _ENORMOUS * middle or _is_unmeasured(name, value)
    ]
    return finding(
        "input-scales-plausible",
        faults,
        good=f"{len(scales)} input scales around {middle:.3g}",
        bad=f"{len(faults)} of {len(scales)} input scales are out of all proportion to the median, "
        "as if nothing had been measured",
        severity=Severity.WARNING,
    )


def _by_kind(scales: Mapping[str, float]) -> dict[str, list[float]]:
    """Return the values of each kind of layer, its numbers left out."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, value in scales.items():
        kinds[re.sub(r"\.\d+(?=\.)", "", name)].append(value)
    return kinds


def _middle(kinds: Mapping[str, list[float]]) -> float:
    return median(median(values) for values in kinds.values()) if kinds else 0.0


def input_scales_measured(contents: Contents) -> Check:
    """Ask for projections none of whose inputs was ever measured: every token is lost there."""
    scales = dict(input_scales(contents))
    middle = _middle(_by_kind(scales))
    largest: dict[str, float] = {}
    for name, value in scales.items():
        where = re.sub(r"\.experts\.\d+\.", ".experts.*.", name)
        largest[where] = max(largest.get(where, 0.0), value)
    faults = [
        f"{where} is {value:.3g}"
        for where, value in largest.items()
        if value < _NOTHING * middle or middle < _LEAST_MIDDLE
    ]
    return finding(
        "input-scales-measured",
        faults,
        good=f"inputs of {len(largest)} projections were measured",
        bad=f"{len(faults)} of {len(largest)} projections have input scales of next to nothing",
    )


def weight_scales_plausible(contents: Contents) -> Check:
    """Ask for scales of weights that are far from those of the same projection elsewhere.

    Layers of one kind have weights of like size: a factor of a thousand is no property of a model.
    """
    scales: dict[str, float] = {}
    for name, facts in contents.facts.items():
        module, leaf = contents.place_of(name)
        is_one = leaf in {_spelled(contents, module, r) for r in ("global_scale", "weight_scale")}
        if is_one and facts.low == facts.high and facts.high > 0:
            scales[name] = facts.high
    middles = {kind: median(values) for kind, values in _by_kind(scales).items()}
    faults = [
        f"{name} is {value:.3g}"
        for name, value in scales.items()
        if not _IMPLAUSIBLE <= value / middles[re.sub(r"\.\d+(?=\.)", "", name)] <= 1 / _IMPLAUSIBLE
    ]
    return finding(
        "weight-scales-plausible",
        faults,
        good=f"{len(scales)} scales of weights are like those of the same projection elsewhere",
        bad=f"{len(faults)} of {len(scales)} scales of weights are out of all proportion to the "
        "same projection elsewhere",
        severity=Severity.WARNING,
    )


def weights_not_zero(contents: Contents) -> Check:
    """Ask for matrices of nothing but zeros, which is what a weight below its format becomes."""
    faults = [
        name
        for name, facts in contents.facts.items()
        if facts.is_zero and len(contents.tensors[name].shape) > 1 and not name.endswith("bias")
    ]
    return finding(
        "weights-not-zero",
        faults,
        good="no matrix is all zeros",
        bad=f"{len(faults)} matrices are all zeros",
        severity=Severity.WARNING,
    )


def input_scales(contents: Contents) -> Iterator[tuple[str, float]]:
    """Yield the name and value of every finite input scale; what is stored as divisor, inverted."""
    for name, facts in contents.facts.items():
        leaf = leaf_of(name)
        if leaf in INPUT_SCALES and math.isfinite(facts.high):
            if leaf not in DIVISORS:
                yield name, facts.high
            elif facts.high > 0:
                yield name, 1 / facts.high


def _is_unmeasured(name: str, value: float) -> bool:
    return leaf_of(name) in DIVISORS and value == 1 / UNMEASURED_DIVISOR
