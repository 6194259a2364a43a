"""One load of one model: what is written down of it, in every process that loads one.

`BaseModelLoader.load_model` is wrapped. Without `HARNESS_LOAD_REPORT` the parameters are filled
all the same, and nothing is written. A draft model of speculative decoding is left alone.

The report is written twice: when the files have been read, for what comes next may stop on a NaN,
and again when vLLM has made its kernels. Where a part of it cannot be had in this vLLM, or fails
while it is made, the load goes on and the report says so.
"""

import importlib
import inspect
import os
from collections.abc import Callable, MutableMapping, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from torch import nn

from . import adapters
from .report import Report, write_report

if TYPE_CHECKING:
    from .watch import Watch

REPORT = "HARNESS_LOAD_REPORT"
"""Environment variable: the report of rank N is `<its value>.rank<N>.json`."""


class Load:
    """A load that is under way, and what its report says of it."""

    def __init__(
        self, *, model_config: Any, platform: str, missing: MutableMapping[str, str]
    ) -> None:
        self.model_config = model_config
        self.platform = platform
        self.missing = dict(missing)
        self.watch: Watch | None = None
        self._sides: list[Any] = []
        if adapters.LOAD_REPORT.name not in missing:
            has_cache = adapters.KV_SCALES.name not in missing
            known = adapters.module_of(adapters.KV_SCALES) if has_cache else None
            followed = adapters.module_of(adapters.LOAD_REPORT)
            self.watch = followed.Watch(model_config=model_config, cache=known)

    def fails(self, adapter: adapters.Adapter, reason: str) -> None:
        """Go on without what an adapter gives."""
        self.missing.setdefault(adapter.name, reason)
        if adapter is adapters.LOAD_REPORT:
            self.watch = None

    def read_expert_scales(self, model: nn.Module) -> None:
        """Remember what the files have for each expert, before vLLM makes its kernels of it."""
        watch = self.watch
        if watch is not None:
            read = self._ask(adapters.EXPERT_SCALES, "read_sides", model, watch.tape, watch.scalars)
            self._sides = read or []

    def write(self, model: nn.Module | None = None, *, model_class: str) -> None:
        """Write what is known now.

        Args:
            model: the model, once vLLM has made its kernels.
            model_class: its name.
        """
        used: dict[str, list[str]] = {}
        scales: dict[str, dict[str, object]] = {}
        if model is not None:
            used = self._ask(adapters.KERNEL_NAMES, "kernels", model) or {}
            scales = self._ask(adapters.EXPERT_SCALES, "reached", model, self._sides) or {}
        watch = self.watch
        report = Report(
            platform=self.platform,
            model_class=model_class,
            reconciled=None if watch is None else watch.reconciled,
            kernels=used,
            expert_scales=scales,
            kv_scales="unknown" if watch is None else watch.kv_scales_are(used.get("kv_cache", [])),
            missing=self.missing,
        )
        write_report(report, prefix=os.environ.get(REPORT))

    def _ask(self, adapter: adapters.Adapter, function: str, *given: object) -> Any:
        """Call a function of an adapter's module; None where it is missing, or fails."""
        if adapter.name in self.missing:
            return None
        try:
            return getattr(adapters.module_of(adapter), function)(*given)
        except Exception as error:  # noqa: BLE001 -- what is served is not to suffer for it
            self.fails(adapter, f"{type(error).__name__}: {error}")
            return None


def watch_loads(*, platform: str, missing: MutableMapping[str, str]) -> None:
    """Wrap vLLM's loaders in this process; a second call does nothing more.

    Args:
        platform: `cpu`, `cuda`, or another platform's name.
        missing: what this vLLM has no place for; gets what is found missing here.
    """
    for adapter in adapters.EVIDENCE:
        adapters.is_there(adapter, missing)
    kernels = cache(lambda: _install_all(adapters.CPU if platform == "cpu" else (), missing))
    if not adapters.is_there(adapters.MODEL_LOADING, missing):
        kernels()
        bare = Load(model_config=None, platform=platform, missing=missing)
        bare.fails(adapters.LOAD_REPORT, "it is not seen when a model is loaded")
        bare.write(model_class="")
        return
    loader = adapters.find(adapters.BASE_LOADER)
    if hasattr(loader.load_model, "harness_vllm"):
        return
    loads: list[Load] = []

    def begin(model_config: Any) -> Load:
        kernels()
        return Load(model_config=model_config, platform=platform, missing=missing)

    loader.load_model = _watched(loader.load_model, loads, begin)
    if adapters.LOAD_REPORT.name not in missing:
        importlib.import_module(f"{__package__}.following").follow(loads)


def _install_all(wanted: Sequence[adapters.Adapter], missing: MutableMapping[str, str]) -> None:
    for adapter in wanted:
        adapters.install(adapter, missing)


def _watched(
    original: Callable[..., nn.Module], loads: list[Load], begin: Callable[[Any], Load]
) -> Callable[..., nn.Module]:
    takes = inspect.signature(original)

    @wraps(original)
    def load_model(*args: Any, **kwargs: Any) -> nn.Module:
        given = takes.bind(*args, **kwargs).arguments
        if given["model_config"] is not given["vllm_config"].model_config:
            return original(*args, **kwargs)
        load = begin(given["model_config"])
        loads.append(load)
        try:
            model = original(*args, **kwargs)
        finally:
            loads.remove(load)
        if load.watch is not None and load.watch.reconciled is None:
            loader = type(given["self"]).__name__
            load.fails(adapters.LOAD_REPORT, f"{loader} read the files, and is not followed")
        load.write(model, model_class=type(model).__name__)
        return model

    load_model.harness_vllm = True  # type: ignore[attr-defined]  # marks that the work is done
    return load_model
