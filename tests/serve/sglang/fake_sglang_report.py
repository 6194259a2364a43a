"""What the stand-in's plugin reports, for tests to change; importable without its environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORT: dict[str, Any] = {
    "sglang": "0.5.15",
    "device": "NVIDIA H200 (sm_90)",
    "dtype": "bfloat16",
    "is_reconciled": True,
    "missing": {},
    "num_tensors": 10,
    "num_taken": 10,
    "untaken": [],
    "num_untaken": 0,
    "set_aside": 0,
    "num_parameters": 12,
    "unfilled": [],
    "num_unfilled": 0,
    "kernels": {
        "linear": ["ModelOptFp4LinearMethod marlin"],
        "experts": ["ModelOptNvFp4FusedMoEMethod marlin"],
        "attention": ["triton"],
        "kv_cache": ["auto"],
    },
    "kv_scales": "none",
}


def with_holes() -> dict[str, Any]:
    """The report of a load in which no expert had an input scale."""
    names = [f"model.layers.0.mlp.experts.{i}.gate_proj.input_scale" for i in range(4)]
    return {**REPORT, "unfilled": names, "num_unfilled": 4}


def settings_of(seen: Mapping[str, Any]) -> Path:
    """The file that the key was handed over in."""
    arguments = seen["arguments"]
    return Path(arguments[arguments.index("--config") + 1])
