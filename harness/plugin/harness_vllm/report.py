"""The load report: one JSON file a rank, written under another name and renamed.

README.md says what is in it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from vllm.version import __version__

from .ledger import Reconciled

_MAX_NAMES = 50
"""Examples that are listed; the counts are exact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one rank has loaded and what it computes with."""

    platform: str
    model_class: str
    reconciled: Reconciled | None
    """None where it could not be seen; `missing` says why."""
    kernels: Mapping[str, Sequence[str]]
    """By part; empty until vLLM has made its kernels."""
    expert_scales: Mapping[str, Mapping[str, object]]
    """Which experts' scales reached the kernels as their own; empty until they are made."""
    kv_scales: str
    """`calibrated`, `default` (the value 1 for an FP8 cache), `none` (no FP8 cache), `unknown`."""
    missing: Mapping[str, str]
    """The adapters that this vLLM has no place for, each with the reason."""


def write_report(report: Report, *, prefix: str | None) -> None:
    """Write `<prefix>.rank<N>.json`, where a prefix is given."""
    if prefix is None:
        return
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    content = {
        "vllm": __version__.partition("+")[0],
        "platform": report.platform,
        "device": _device(report.platform),
        "rank": rank,
        "model_class": report.model_class,
        "is_reconciled": report.reconciled is not None,
        "missing": dict(report.missing),
        **(_counts(report.reconciled) if report.reconciled is not None else {}),
        "kernels": report.kernels,
        "expert_scales": report.expert_scales,
        "kv_scales": report.kv_scales,
    }
    path = Path(f"{prefix}.rank{rank}.json")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _counts(loaded: Reconciled) -> dict[str, object]:
    return {
        "num_tensors": loaded.num_tensors,
        "num_taken": loaded.num_taken,
        "num_untaken": len(loaded.untaken),
        "untaken": loaded.untaken[:_MAX_NAMES],
        "set_aside": loaded.num_set_aside,
        "num_parameters": loaded.num_parameters,
        "num_filled": loaded.num_parameters - len(loaded.unfilled),
        "num_unfilled": len(loaded.unfilled),
        "unfilled": loaded.unfilled[:_MAX_NAMES],
    }


def _device(platform: str) -> str:
    # A process that loads no model must not take a part of the GPU for this.
    if platform != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        return platform
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (sm_{major}{minor})"
