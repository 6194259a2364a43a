"""Are the numbers ones that an engine can compute with?"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median

from harness.artifacts import Check, Severity
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.modules import KV_LEAVES, SCALE_LEAVES, expert_of, fused_groups
from harness.verify.scan import Facts

_IMPLAUSIBLE = 1e-3
"""An input scale this many times smaller than the checkpoint's median is worth a look."""


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
    scales = [name for name in contents.facts if _leaf(name) in (*SCALE_LEAVES, *KV_LEAVES)]
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
    others = [n for n in contents.facts if _leaf(n) not in (*SCALE_LEAVES, *KV_LEAVES)]
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
        leaf="weight_scale_2",
        routed=True,
        severity=Severity.ERROR,
    )


def fused_global_scales_equal(contents: Contents) -> Check:
    """Ask the same of the layers outside experts that engines fuse."""
    return _about_groups(
        contents,
        "fused-scales-equal",
        leaf="weight_scale_2",
        routed=False,
        severity=Severity.ERROR,
    )


def fused_input_scales_equal(contents: Contents) -> Check:
    """Ask whether fused layers, which read one input, share its scale; engines take the max."""
    return _about_groups(
        contents,
        "fused-input-scales-equal",
        leaf="input_scale",
        routed=False,
        severity=Severity.WARNING,
    )


def _about_groups(
    contents: Contents, check: str, *, leaf: str, routed: bool, severity: Severity
) -> Check:
    groups = [
        group
        for group in fused_groups(contents.modules)
        if (expert_of(group[0]) is not None) is routed and _values(contents, group, leaf)
    ]
    faults = [
        f"{' and '.join(group)} with {_listed(_values(contents, group, leaf))}"
        for group in groups
        if len(set(_values(contents, group, leaf))) > 1
    ]
    return finding(
        check,
        faults,
        good=f"{len(groups)} groups of fused layers share their {leaf}",
        bad=f"{len(faults)} of {len(groups)} groups of fused layers have different {leaf}",
        severity=severity,
    )


def _values(contents: Contents, group: tuple[str, ...], leaf: str) -> list[float]:
    facts = (contents.facts.get(f"{name}.{leaf}") for name in group)
    return [f.high for f in facts if f is not None and math.isfinite(f.high)]


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def input_scales_plausible(contents: Contents) -> Check:
    """Ask for input scales that are far below all others, as a layer has that saw no text.

    The yardstick is the median over kinds of layers of each kind's median, so that experts, which
    are the most, cannot move it by themselves.
    """
    scales = dict(input_scales(contents))
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, value in scales.items():
        kinds[re.sub(r"\.\d+(?=\.)", "", name)].append(value)
    middle = median(median(values) for values in kinds.values()) if kinds else 0.0
    faults = [f"{n} is {v:.3g}" for n, v in scales.items() if v < _IMPLAUSIBLE * middle]
    return finding(
        "input-scales-plausible",
        faults,
        good=f"{len(scales)} input scales around {middle:.3g}",
        bad=f"{len(faults)} of {len(scales)} input scales are below a thousandth of the median",
        severity=Severity.WARNING,
    )


def input_scales(contents: Contents) -> Iterator[tuple[str, float]]:
    """Yield the name and value of every finite input scale."""
    for name, facts in contents.facts.items():
        if _leaf(name) == "input_scale" and math.isfinite(facts.high):
            yield name, facts.high


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
