"""Are all experts quantized, each by its own numbers?"""

import math
from collections import defaultdict
from collections.abc import Iterator

from harness.artifacts import Check, Severity
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.layouts import DIVISORS
from harness.verify.modules import (
    expert_of,
    experts_of,
    fused_name,
    is_draft,
    is_plain_linear,
    is_quantized,
)
from harness.verify.scan import Facts

_MIN_EXPERTS = 4
"""Fewer may share a scale by accident: amax has 8 significant bits."""
_SATURATED = 0x7E
"""The largest E4M3 code, to which the largest value of what shares a scale is mapped."""
_NEARLY_ALL = 0.9
_SAME_SIZE = 0.02
"""How far a factor may be from 1 by rounding alone."""
_E4M3_MAX, _E2M1_MAX = 448.0, 6.0
_E2M1_MANTISSAS = (0.5, 0.75)
"""Of its values, as frexp has them."""


def expert_scales_distinct(contents: Contents) -> Check:
    """Ask whether one expert's scales were written for all experts of a layer.

    Equal scales alone are no fault: a recipe may give all experts one scale. But then only the
    expert with the largest weight reaches the largest code. Where every expert reaches it, each was
    quantized by a scale of its own, and equal scales are a copy. Equal matrices of block scales
    are one always, unless the weights are equal too.
    """
    faults: list[str] = []
    groups = _projections(contents)
    for where, modules in groups.items():
        if len(modules) < _MIN_EXPERTS:
            continue
        if _is_one_scalar_for_all(contents, modules) and not _are_true(contents, modules):
            faults.append(f"{where}: {len(modules)} weights have one scale, each by its own range")
        for projection in sorted({name.rpartition(".")[2] for name in modules}):
            alike = [name for name in modules if name.endswith(f".{projection}")]
            if _is_one_matrix_for_all(contents, alike):
                faults.append(f"{where}: each {projection} has the same block scales")
    return finding(
        "expert-scales-distinct",
        faults,
        good=f"no expert's scales are repeated ({len(groups)} projections)",
        bad=f"{len(faults)} of {len(groups)} projections have one expert's scales for all experts",
    )


def _projections(contents: Contents) -> dict[str, list[str]]:
    """Return the quantized modules of each projection of each layer; gate and up are one."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, module in contents.modules.items():
        expert = expert_of(name)
        if expert and is_quantized(module):
            whole = (fused_name(name) or name).rpartition(".")[2]
            found[f"{expert.experts}.*.{whole}"].append(name)
    return found


def _is_one_scalar_for_all(contents: Contents, modules: list[str]) -> bool:
    layout = contents.layout_of(modules[0])
    if layout is None:
        return False
    role = "global_scale" if "global_scale" in layout.tensors else "weight_scale"
    coded = "weight_scale" if role == "global_scale" else "weight"
    scales = list(_facts(contents, modules, layout.leaf(role)))
    values = {value for f in scales for value in f[:2]}
    if len(scales) < len(modules) or len(values) != 1:
        return False
    if _is_of_four_bits(values.pop(), layout.leaf(role) or "", coded):
        return False
    saturated: dict[str, bool] = defaultdict(bool)
    for name in modules:
        facts = contents.facts.get(contents.tensor_of(name, layout.leaf(coded)), Facts())
        saturated[name.rpartition(".")[0]] |= facts.largest_code >= _SATURATED
    return sum(saturated.values()) >= _NEARLY_ALL * len(saturated)


def _are_true(contents: Contents, modules: list[str]) -> bool:
    """Tell whether the source was compared, and each weight has the source's size.

    Then the experts' ranges are equal in the source. A copied scale makes weights as much too large
    or small as their ranges differ.
    """
    if contents.origin is None:
        return False
    fits = contents.origin.comparison.fits
    return all(m in fits and abs(fits[m].fit.gain - 1) < _SAME_SIZE for m in modules)


def _is_of_four_bits(scale: float, leaf: str, coded: str) -> bool:
    """Return whether a range is 4, 6 or the like times a power of two.

    Experts that were E2M1 before (gpt-oss) have such ranges, and many have the same.
    """
    largest = _E4M3_MAX if coded == "weight" else _E2M1_MAX * _E4M3_MAX
    amax = largest / scale if leaf in DIVISORS and scale else largest * scale
    mantissa, _ = math.frexp(amax)
    return any(math.isclose(mantissa, one, rel_tol=1e-6) for one in _E2M1_MANTISSAS)


def _is_one_matrix_for_all(contents: Contents, modules: list[str]) -> bool:
    layout = contents.layout_of(modules[0])
    if layout is None:
        return False
    scales = list(_facts(contents, modules, layout.leaf("weight_scale")))
    weights = {f.mark for f in _facts(contents, modules, layout.leaf("weight"))}
    is_matrix = len(scales) == len(modules) and all(f.mark and f.low < f.high for f in scales)
    return is_matrix and len({f.mark for f in scales}) == 1 and len(weights) > 1


def _facts(contents: Contents, modules: list[str], leaf: str | None) -> Iterator[Facts]:
    found = (contents.facts.get(contents.tensor_of(name, leaf)) for name in modules)
    return (facts for facts in found if facts is not None)


def experts_quantized(contents: Contents) -> Check:
    """Ask whether the experts, which are most of a model, were left out of the quantization.

    A warning: a list that excludes them is obeyed, and the model is right, but not small.
    """
    plain: set[str] = set()
    quantized: set[str] = set()
    for name, module in contents.modules.items():
        path = experts_of(name)
        if path is None or (path == name and not is_plain_linear(name, module)):
            continue
        if is_draft(path, contents.drafts):
            continue
        (quantized if is_quantized(module) else plain).add(path)
    left_out = sorted(plain - quantized)
    has_others = any(is_quantized(module) for module in contents.modules.values())
    return finding(
        "experts-quantized",
        left_out if has_others else [],
        good=f"routed experts of {len(quantized)} layers are quantized"
        if quantized
        else "there are no routed experts",
        bad=f"routed experts of {len(left_out)} of {len(plain | quantized)} layers "
        "are left unquantized",
        severity=Severity.WARNING,
    )
