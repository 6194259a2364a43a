"""What a server that is ready did not show: what it loaded, or with which kernels it computes.

The plugin leaves out the parts of it that do not fit a version, and its reports name them. A gap
is no fault: the verdict names it, and ends INCONCLUSIVE unless the run says otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence

from harness.artifacts import Gap
from harness.engines import Abilities, Demands, parts_of, unnamed_kernels
from harness.errors import ReasonCode

_LOAD, _UNKNOWN = ReasonCode.LOAD_NOT_RECONCILED, ReasonCode.KERNELS_UNKNOWN
_WITHOUT = {
    "model-loading": f"what is loaded is not seen: {_LOAD}, {_UNKNOWN}",
    "load-report": f"what is loaded is not held against the files: {_LOAD}",
    "expert-scales": f"an expert's scale is not seen to reach its kernel as its own: {_LOAD}",
    "kv-scales": f"calibrated scales of keys and values are not seen to arrive: {_LOAD}",
    "kernel-names": f"which kernels compute is not told: {_UNKNOWN}",
}
"""What a verdict lacks without a part of the plugin."""
Report = Mapping[str, object]
_KERNELS = "kernel-names"
"""The adapter of the plugin that asks the model for its kernels."""
_SCALES = ("expert-scales",)
"""The adapter that holds the experts' scales against the files."""


def foretold(abilities: Abilities) -> tuple[str, ...]:
    """Return what will not be seen of a server, by the parts of the plugin that do not fit it."""
    return tuple(gap for adapter, gap in _WITHOUT.items() if adapter in abilities.missing)


def is_reconciled(report: Report) -> bool:
    """Return whether a worker has held what it loaded against the files."""
    return report.get("is_reconciled") is not False and "num_parameters" in report


def gaps(
    reports: Sequence[Report], kernels: Mapping[str, Sequence[str]], demands: Demands
) -> tuple[Gap, ...]:
    """Return what the workers' reports leave open.

    Args:
        reports: one a worker.
        kernels: names by part, from the reports or else from the log.
        demands: what the checkpoint declares.
    """
    return (*_of_the_load(reports, demands), *_of_the_kernels(reports, kernels, demands))


def _of_the_load(reports: Sequence[Report], demands: Demands) -> Iterator[Gap]:
    without = [report for report in reports if not is_reconciled(report)]
    if without:
        yield Gap(
            reason=_LOAD,
            message="it is not known which tensors of the files the engine took and which of its "
            f"parameters they filled{_why(without[0], ignoring=(_KERNELS,))}",
        )
    elif demands.kv_calibrated and any(one.get("kv_scales") == "unknown" for one in reports):
        yield Gap(
            reason=_LOAD,
            message="it is not known whether keys and values have the scales of the files"
            f"{_why(reports[0], only=('kv-scales',))}",
        )
    elif demands.experts and (lost := [one for one in reports if _why(one, only=_SCALES)]):
        yield Gap(
            reason=_LOAD,
            message="it is not known whether each expert's scale reached the kernel as its own"
            f"{_why(lost[0], only=_SCALES)}",
        )


def _of_the_kernels(
    reports: Sequence[Report], kernels: Mapping[str, Sequence[str]], demands: Demands
) -> Iterator[Gap]:
    asked = {"linear": demands.linears, "experts": demands.experts}
    silent = [part for part, algorithms in asked.items() if algorithms and not _told(reports, part)]
    unnamed = {
        part: found
        for part, algorithms in asked.items()
        if algorithms and (found := unnamed_kernels(kernels.get(part, ())))
    }
    unknown = [
        one
        for part, algorithms in asked.items()
        for one in parts_of(algorithms)
        if not kernels.get(part) or (part in unnamed and one.startswith("inputs:"))
    ]
    if demands.kv is not None and not _told(reports, "kv_cache"):
        silent.append("kv_cache")
        unknown.append(f"kv:{demands.kv}")
    parts = tuple(dict.fromkeys(unknown))
    if silent:
        yield Gap(
            reason=_UNKNOWN,
            message=f"the engine did not tell what computes {' and '.join(silent)}"
            f"{_why(reports[0], only=(_KERNELS,)) if reports else ''}",
            parts=parts,
        )
    elif unnamed:
        names = ", ".join(name for found in unnamed.values() for name in found)
        yield Gap(
            reason=_UNKNOWN,
            message=f"it is not known whether {names} rounds inputs as they are declared",
            parts=parts,
        )


def _told(reports: Sequence[Report], part: str) -> bool:
    """Return whether every worker named the kernels of a part."""
    named = [report.get("kernels") for report in reports]
    return bool(named) and all(isinstance(one, Mapping) and one.get(part) for one in named)


def _why(report: Report, *, only: tuple[str, ...] = (), ignoring: tuple[str, ...] = ()) -> str:
    """Return the plugin's reasons, as the end of a clause."""
    missing = report.get("missing")
    named = missing.items() if isinstance(missing, Mapping) else ()
    reasons = [
        f"{name}: {why}"
        for name, why in named
        if (not only or name in only) and name not in ignoring and not str(name).startswith("cpu-")
    ]
    return f" ({'; '.join(reasons)[:500]})" if reasons else ""
