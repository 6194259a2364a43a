"""What a server really runs: from the plugin's load reports and from the log.

The plugin writes one report for each worker: what it took from the files, what stayed unfilled,
and the kernels that vLLM chose; what it has no place for in a version, its report names (gaps.py).
A server without a report ran without the plugin, and then nothing is known of what it loaded: that
is an error, not a gap.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import Finding, Gap, Loaded, Severity
from harness.engines import Demands, exercised
from harness.errors import ReasonCode
from harness.serve.vllm.expert_scales import KINDS, count_scales, expert_scale_findings
from harness.serve.vllm.gaps import Report, gaps, is_reconciled
from harness.serve.vllm.log_patterns import PATTERNS, LogPattern, find_patterns
from harness.serve.vllm.variables import REPORT_PREFIX

_DTYPE = re.compile(r"\bdtype=torch\.(\w+)")
_KERNELS_OF_VLLM = (
    ("linear", re.compile(r"Using (\w+) for \w+ GEMM")),
    ("linear", re.compile(r"Selected (\w+) for \w+")),
    ("experts", re.compile(r"Using '?([\w ]+?)'? (?:\w+ )?MoE backend")),
    ("attention", re.compile(r"Using (\w+) (?:attention )?backend")),
)


class EngineWords(NamedTuple):
    """How an engine's log says what matters; data of each engine."""

    damage: tuple[LogPattern, ...]
    """Lines that tell of a damaged deployment."""
    kernels: tuple[tuple[str, re.Pattern[str]], ...]
    """Lines that name a kernel, by the part that it computes."""


OF_VLLM = EngineWords(PATTERNS, _KERNELS_OF_VLLM)
NOTHING_RESOLVED: Mapping[str, Sequence[str]] = {}
_SCALE = re.compile(r"scale(_2)?$")
_WEIGHTS_MEMORY = re.compile(r"odel loading took (\d+(?:\.\d+)?) GiB")
_REPORT_BYTES = 16 << 20
_LISTED = 50
"""Names that a report lists at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What a server showed of itself."""

    dtype: str
    device: str | None
    """As the workers name it; None without a report."""
    kernels: Mapping[str, str]
    exercised: tuple[str, ...]
    loaded: Loaded | None
    findings: tuple[Finding, ...]
    not_observed: tuple[Gap, ...] = ()
    weights_memory_bytes: int | None = None
    """On all GPUs together, as the log says it."""


def observe(
    demands: Demands,
    *,
    records: Path,
    log: str,
    words: EngineWords = OF_VLLM,
    resolved: Mapping[str, Sequence[str]] = NOTHING_RESOLVED,
) -> Observed:
    """Read what a server that is ready has told.

    Args:
        demands: what the checkpoint declares.
        records: folder of the load reports.
        log: the server's log until now.
        words: how this engine's log says what matters.
        resolved: names of kernels by part, as the server tells them when it is asked.
    """
    reports, broken = _read_reports(records)
    kernels = _kernels(reports, log, words, resolved)
    followed = bool(reports) and all(is_reconciled(report) for report in reports)
    findings = [*broken, *(_load_findings(reports, demands) if followed else ())]
    findings += expert_scale_findings(reports)
    found = {finding.id for finding in findings}
    known = find_patterns(
        log,
        words.damage,
        kv_calibrated=demands.kv_calibrated,
        rounded_inputs=any(part.startswith("inputs:") for part in demands.declared),
    )
    findings += [finding for finding in known if finding.id not in found]
    return Observed(
        dtype=_dtype(reports, log),
        device=str(reports[0]["device"]) if reports else None,
        kernels={part: ", ".join(names) for part, names in kernels.items() if names},
        exercised=exercised(demands, kernels),
        loaded=_loaded(reports) if followed else None,
        findings=tuple(findings),
        not_observed=gaps(reports, kernels, demands) if reports else (),
        weights_memory_bytes=weights_memory(log),
    )


def weights_memory(log: str) -> int | None:
    """Return what the weights take of all GPUs together; each worker says its part."""
    return round(sum(float(gib) for gib in _WEIGHTS_MEMORY.findall(log)) * (1 << 30)) or None


def _dtype(reports: Sequence[Report], log: str) -> str:
    """Return the model's type, as a worker or else the log says; `auto` where neither does."""
    told = reports[0].get("dtype") if reports else None
    if isinstance(told, str) and told:
        return told
    found = _DTYPE.search(log)
    return found.group(1) if found else "auto"


def clear_reports(records: Path) -> None:
    """Remove what an earlier server left, so that it cannot be taken for this one's."""
    for path in records.glob(f"{REPORT_PREFIX}.rank*.json"):
        path.unlink()


NOT_FILLED, NOT_TAKEN = "parameter-not-filled", "tensor-not-taken"
DEFAULT_KV_SCALE = "default-kv-scale"


def _read_reports(records: Path) -> tuple[list[Report], list[Finding]]:
    reports: list[Report] = []
    paths = sorted(records.glob(f"{REPORT_PREFIX}.rank*.json"))
    for path in paths:
        try:
            reports.append(_read_report(path))
        except (OSError, ValueError, RecursionError) as error:
            return [], [_no_report(f"'{path.name}' cannot be read: {error}")]
    return reports, [] if paths else [_no_report("no worker wrote one")]


def _read_report(path: Path) -> Report:
    """Read a report that a server wrote, whoever made its image: no link, no device, no end.

    Raises:
        OSError: it is no regular file.
        ValueError: it is no report.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(opened, "rb") as file:  # noqa: PTH123 -- a descriptor
        content = file.read(_REPORT_BYTES + 1) if stat.S_ISREG(os.fstat(opened).st_mode) else b""
    found = json.loads(content) if len(content) <= _REPORT_BYTES else None
    report: Report = found if isinstance(found, dict) else {}
    kernels = report.get("kernels")
    if not isinstance(kernels, dict) or not isinstance(report.get("device"), str):
        message = "it is no report of harness's plugin"
        raise ValueError(message)  # noqa: TRY004 -- a text that others wrote
    if not all(isinstance(names, list) for names in kernels.values()):
        message = "its kernels are no lists"
        raise ValueError(message)
    return report


def _no_report(detail: str) -> Finding:
    return Finding(
        id="load-report-missing",
        severity=Severity.ERROR,
        message=f"it is not known what the engine loaded: {detail}",
        reason=ReasonCode.LOAD_MISMATCH,
        incident="a gate that looked at something else than what was released",
    )


def _load_findings(reports: Sequence[Report], demands: Demands) -> Iterator[Finding]:
    unfilled = list(
        dict.fromkeys(name for report in reports for name in _names(report, "unfilled"))
    )
    if num_unfilled := max(_count(report, "num_unfilled") for report in reports):
        scales = [name for name in unfilled if _SCALE.search(name)]
        yield Finding(
            id=NOT_FILLED,
            severity=Severity.ERROR,
            message=f"{num_unfilled} of {_most(reports, 'num_parameters')} parameters were filled "
            f"by no tensor of the files, first '{unfilled[0] if unfilled else '?'}'",
            reason=ReasonCode.SCALE_MISSING
            if len(scales) == len(unfilled)
            else ReasonCode.LOAD_MISMATCH,
            incident="0 of 30,720 expert input scales were in the files; vLLM served what was in "
            "memory, healthy by every check, and answered in token salad",
            examples=tuple(unfilled[:5]),
        )
    untaken = _untaken(reports)
    if num_untaken := _num_untaken(reports, untaken):
        yield Finding(
            id=NOT_TAKEN,
            severity=Severity.ERROR,
            message=f"{num_untaken} of {_most(reports, 'num_tensors')} tensors of the files "
            f"reached no parameter, first '{untaken[0] if untaken else '?'}'",
            reason=ReasonCode.LOAD_MISMATCH,
            incident="expert scales dropped by a branch for weights only: garbage answers (vLLM "
            "issues 37462, 49638)",
            examples=tuple(untaken[:5]),
        )
    if demands.kv_calibrated and any(report.get("kv_scales") == "default" for report in reports):
        yield Finding(
            id=DEFAULT_KV_SCALE,
            severity=Severity.ERROR,
            message="keys and values have calibrated scales by what the files hold or declare, "
            "and the engine uses 1.0",
            reason=ReasonCode.LOAD_MISMATCH,
            incident="Qwen3.5's k and v scales were dropped by vLLM up to 0.27.1",
        )


def _loaded(reports: Sequence[Report]) -> Loaded:
    """Add up the workers: each holds a part of the model and reads all of the files."""
    num_tensors, num_parameters = _most(reports, "num_tensors"), _most(reports, "num_parameters")
    set_aside = _most(reports, "set_aside")
    untaken = _num_untaken(reports, _untaken(reports))
    return Loaded(
        num_tensors=num_tensors,
        num_taken=num_tensors - set_aside - untaken,
        num_set_aside=set_aside,
        num_parameters=num_parameters,
        num_filled=num_parameters - _most(reports, "num_unfilled"),
        num_expert_scales=sum(count_scales(reports, kind, "num") for kind in KINDS),
        num_own_expert_scales=sum(count_scales(reports, kind, "num_own") for kind in KINDS),
    )


def _untaken(reports: Sequence[Report]) -> list[str]:
    """Return the tensors that no worker took, of those that the reports list."""
    others = [set(_names(report, "untaken")) for report in reports[1:]]
    return [n for n in _names(reports[0], "untaken") if all(n in other for other in others)]


def _num_untaken(reports: Sequence[Report], listed: Sequence[str]) -> int:
    counts = [_count(report, "num_untaken") for report in reports]
    # Beyond what is listed only the counts are known; every worker reads every file.
    return len(listed) if min(counts) <= _LISTED else min(counts)


def _kernels(
    reports: Iterable[Report],
    log: str,
    words: EngineWords,
    resolved: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"linear": [], "experts": [], "attention": [], "kv_cache": []}
    for report in reports:
        named = report.get("kernels")
        for part, names in named.items() if isinstance(named, Mapping) else ():
            found.setdefault(str(part), []).extend(map(str, names))
    for part, names in found.items():
        # A worker knows better than the log, which names what was chosen for some layer.
        if not names and resolved.get(part):
            names.extend(resolved[part])
        elif not names:
            names += [n for p, pattern in words.kernels if p == part for n in pattern.findall(log)]
    return {part: list(dict.fromkeys(names)) for part, names in found.items()}


def _names(report: Report, key: str) -> list[str]:
    listed = report.get(key)
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _count(report: Report, key: str) -> int:
    value = report.get(key)
    return value if isinstance(value, int) else 0


def _most(reports: Iterable[Report], key: str) -> int:
    return max(_count(report, key) for report in reports)
