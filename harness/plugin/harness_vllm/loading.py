"""Watching vLLM load a model: fill, follow, compare, and write the load report.

Four methods of vLLM's loaders are wrapped, in every process; nothing happens in a process that
loads no model. Without `HARNESS_LOAD_REPORT` the parameters are filled all the same, and nothing
is written. A draft model of speculative decoding is left alone.

The report is written twice: when the files have been read, for what comes next may stop on a NaN,
and again when vLLM has made its kernels.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

from torch import Tensor, nn
from torch.utils._mode_utils import no_dispatch
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from .report import write_report
from .watch import Watch

REPORT = "HARNESS_LOAD_REPORT"
"""Environment variable: the report of rank N is `<its value>.rank<N>.json`."""


def install(*, platform: str) -> None:
    """Wrap vLLM's loaders in this process; a second call does nothing more."""
    if hasattr(BaseModelLoader.load_model, "harness_vllm"):
        return
    watches: list[Watch] = []
    _wrap_load_model(watches, platform, cache(_install_cpu_kernels))
    _wrap_load_weights(watches)
    _wrap_get_all_weights(watches)
    _wrap_prepare_weights(watches)


def _install_cpu_kernels() -> None:
    from .cpu_patches import install_cpu_kernels  # noqa: PLC0415 -- only a process that loads needs it

    install_cpu_kernels()


def _wrap_load_model(watches: list[Watch], platform: str, cpu_kernels: Callable[[], None]) -> None:
    original: Callable[..., nn.Module] = BaseModelLoader.load_model

    @wraps(original)
    def load_model(
        self: BaseModelLoader,
        vllm_config: Any,
        model_config: Any,
        prefix: str = "",
    ) -> nn.Module:
        if model_config is not vllm_config.model_config:
            return original(self, vllm_config, model_config, prefix)
        if platform == "cpu":
            cpu_kernels()
        watch = Watch(model_config=model_config, platform=platform)
        watches.append(watch)
        try:
            model = original(self, vllm_config, model_config, prefix)
        finally:
            watches.remove(watch)
        write_report(watch.report(kernels_of=model), prefix=os.environ.get(REPORT))
        return model

    load_model.harness_vllm = True  # type: ignore[attr-defined]  # marks that the work is done
    BaseModelLoader.load_model = load_model


def _wrap_load_weights(watches: list[Watch]) -> None:
    original: Callable[..., None] = DefaultModelLoader.load_weights

    @wraps(original)
    def load_weights(self: DefaultModelLoader, model: nn.Module, model_config: Any) -> None:
        watch = _watch_of(watches, model_config)
        if watch is None:
            original(self, model, model_config)
            return
        watch.begin(model)
        try:
            with watch.tape:
                original(self, model, model_config)
        finally:  # a loader that has read all and refuses to go on says less than the report
            if watch.end():
                write_report(watch.report(), prefix=os.environ.get(REPORT))

    DefaultModelLoader.load_weights = load_weights


def _wrap_get_all_weights(watches: list[Watch]) -> None:
    original: Callable[..., Iterator[tuple[str, Tensor]]] = DefaultModelLoader.get_all_weights

    @wraps(original)
    def get_all_weights(
        self: DefaultModelLoader,
        model_config: Any,
        model: nn.Module,
    ) -> Iterator[tuple[str, Tensor]]:
        watch = _watch_of(watches, model_config)
        found = original(self, model_config, model)
        if watch is None:
            yield from found
            return
        for name, tensor in _untaped(found):
            watch.sees(name, tensor)
            yield name, tensor
        watch.saw_all()

    DefaultModelLoader.get_all_weights = get_all_weights


def _untaped(weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield what a loader reads; its way from the file to memory is nothing that a tape follows.

    The tape would see half a dozen operations a tensor, most of all that it sees.
    """
    while True:
        with no_dispatch():
            found = next(weights, None)
        if found is None:
            return
        yield found


def _wrap_prepare_weights(watches: list[Watch]) -> None:
    original: Callable[..., tuple[Any, ...]] = DefaultModelLoader._prepare_weights

    @wraps(original)
    def prepare_weights(self: DefaultModelLoader, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        found = original(self, *args, **kwargs)
        for watch in watches[-1:]:
            watch.reads(found[1])
        return found

    DefaultModelLoader._prepare_weights = prepare_weights


def _watch_of(watches: list[Watch], model_config: object) -> Watch | None:
    for watch in watches:
        if watch.model_config is model_config:
            return watch
    return None
