"""The load report of SGLang: its default loader is watched, through SGLang's own hooks.

Written when the files have been read, for what comes next may stop on a NaN, and again when SGLang
has made its kernels. Where a load cannot be followed it goes on, and the report says why.

Source: SGLang 0.5.15, plugins/hook_registry.py, model_loader/loader.py.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from harness_vllm.ledger import Reconciled
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.version import __version__
from torch import nn

from .kernels import kernels
from .watch import Watch

REPORT = "HARNESS_LOAD_REPORT"
_LOADER = "sglang.srt.model_loader.loader.DefaultModelLoader.load_weights_and_postprocess"
_MAX_NAMES = 50


def watch_loads() -> None:
    """Have SGLang call us around every load of its default loader."""
    HookRegistry.register(_LOADER, _watched, HookType.AROUND)


def _watched(original: Callable[..., Any], model: nn.Module, weights: Any, *others: Any) -> Any:
    missing: dict[str, str] = {}
    try:
        watch = Watch(model)
    except Exception as error:  # noqa: BLE001 -- what is loaded is not to suffer for it
        missing["load-report"] = f"{type(error).__name__}: {error}"
        result = original(model, weights, *others)
        _write(model, None, missing)
        return result
    load_weights: Callable[[Any], Any] = model.load_weights  # type: ignore[assignment]

    def followed(read: Any) -> Any:
        try:
            with watch.tape:
                return load_weights(watch.seen(read))
        finally:
            _finish(watch, missing)
            _write(model, watch, missing, with_kernels=False)

    model.load_weights = followed  # type: ignore[assignment]
    try:
        result = original(model, weights, *others)
    finally:
        del model.load_weights
    _write(model, watch, missing)
    return result


def _finish(watch: Watch, missing: dict[str, str]) -> None:
    try:
        watch.end()
    except Exception as error:  # noqa: BLE001 -- as above
        missing["load-report"] = f"{type(error).__name__}: {error}"


def _write(
    model: nn.Module, watch: Watch | None, missing: dict[str, str], *, with_kernels: bool = True
) -> None:
    prefix = os.environ.get(REPORT)
    if prefix is None:
        return
    used: Mapping[str, list[str]] = {}
    if with_kernels:
        try:
            used = kernels(model)
        except Exception as error:  # noqa: BLE001 -- as above
            missing["kernel-names"] = f"{type(error).__name__}: {error}"
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    reconciled = None if watch is None else watch.reconciled
    content = {
        "sglang": __version__,
        "device": _device(),
        # SGLang loads with the model's own type as torch's default.
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "rank": rank,
        "model_class": type(model).__name__,
        "is_reconciled": reconciled is not None,
        "missing": missing,
        **(_counts(reconciled) if reconciled is not None else {}),
        "kernels": dict(used),
        "kv_scales": _kv_scales(watch, used),
    }
    path = Path(f"{prefix}.rank{rank}.json")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _kv_scales(watch: Watch | None, used: Mapping[str, list[str]]) -> str:
    if watch is None:
        return "unknown"
    is_fp8 = any("fp8" in dtype for dtype in used.get("kv_cache", ()))
    return watch.kv_scales if is_fp8 else "none"


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


def _device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (sm_{major}{minor})"
