"""What the workers' reports say of each expert's scale: whether the kernel has it as its own."""

from collections.abc import Iterator, Mapping, Sequence

from harness.artifacts import Finding, Severity
from harness.errors import ReasonCode
from harness.serve.vllm.gaps import Report

NOT_OWN = "expert-scale-not-own"
KINDS = ("weights", "inputs")
_LOADS_RIGHT = "fp8_layer_scales"
"""The recipe whose experts have one scale a layer."""


def expert_scale_findings(reports: Sequence[Report]) -> Iterator[Finding]:
    """Yield an error for each kind of scale of which an expert has another's in the kernel."""
    for kind in KINDS:
        wrong, num = (count_scales(reports, kind, key) for key in ("num_wrong", "num"))
        if wrong:
            examples = [name for report in reports for name in _examples(report, kind)]
            yield Finding(
                id=NOT_OWN,
                severity=Severity.ERROR,
                message=f"{wrong} of {num} scales of experts' {kind} are not those that the "
                f"kernel computes with, first '{examples[0] if examples else '?'}'; this engine "
                "gives experts scales of others. FP8 that it loads right is made by the recipe "
                f"{_LOADS_RIGHT}",
                reason=ReasonCode.SCALE_MISMATCH,
                incident="one expert's scale was used for all 256 of a layer: gibberish, with all "
                "health checks green",
                examples=tuple(examples[:5]),
            )


def count_scales(reports: Sequence[Report], kind: str, key: str) -> int:
    """Return a sum over the workers: with experts spread over ranks each has a part of them."""
    return sum(_count(_told(report, kind), key) for report in reports)


def _told(report: Report, kind: str) -> Mapping[str, object]:
    scales = report.get("expert_scales")
    told = scales.get(kind) if isinstance(scales, Mapping) else None
    return told if isinstance(told, Mapping) else {}


def _count(told: Mapping[str, object], key: str) -> int:
    value = told.get(key)
    return value if isinstance(value, int) else 0


def _examples(report: Report, kind: str) -> list[str]:
    listed = _told(report, kind).get("examples")
    return [str(name) for name in listed] if isinstance(listed, list) else []
