"""Following the tensors of the files into the model: three methods of vLLM's default loader."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from . import adapters
from .loading import Load
from .watch import Watch


def follow(loads: list[Load]) -> None:
    """Wrap the loader for the loads that will be in this list while they are under way."""
    loader = adapters.find(adapters.DEFAULT_LOADER)
    loader.load_weights = _load_weights(loader.load_weights, loads)
    loader.get_all_weights = _get_all_weights(loader.get_all_weights, loads)
    loader._prepare_weights = _prepare_weights(loader._prepare_weights, loads)


def _load_weights(original: Callable[..., Any], loads: list[Load]) -> Callable[..., Any]:
    takes = inspect.signature(original)

    @wraps(original)
    def load_weights(*args: Any, **kwargs: Any) -> Any:
        given = takes.bind(*args, **kwargs).arguments
        load = _load_of(loads, given["model_config"])
        if load is None or load.watch is None:
            return original(*args, **kwargs)
        watch = load.watch
        if not _attempt(load, lambda: watch.begin(given["model"])):
            return original(*args, **kwargs)
        try:
            with watch.tape:
                return original(*args, **kwargs)
        finally:  # a loader that has read all and refuses to go on says less than the report
            _attempt(load, watch.end)
            if watch.reconciled is not None:
                load.read_expert_scales(given["model"])
                load.write(model_class=type(given["model"]).__name__)

    return load_weights


def _get_all_weights(original: Callable[..., Any], loads: list[Load]) -> Callable[..., Any]:
    takes = inspect.signature(original)

    @wraps(original)
    def get_all_weights(*args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        load = _load_of(loads, takes.bind(*args, **kwargs).arguments["model_config"])
        found = original(*args, **kwargs)
        if load is None or load.watch is None:
            yield from found
            return
        yield from _seen(load.watch, _untaped(found))

    return get_all_weights


def _seen(watch: Watch, weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights:
        with no_dispatch():
            watch.sees(name, tensor)
        yield name, tensor
    watch.saw_all()


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


def _prepare_weights(original: Callable[..., Any], loads: list[Load]) -> Callable[..., Any]:
    @wraps(original)
    def prepare_weights(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        load = loads[-1] if loads else None
        if load is not None and load.watch is not None:
            watch = load.watch
            _attempt(load, lambda: watch.reads(found[1]))
        return found

    return prepare_weights


def _attempt(load: Load, step: Callable[[], object]) -> bool:
    """Do a step of the report, which may fail without harm to the load."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 -- what is loaded is not to suffer for it
        load.fails(adapters.LOAD_REPORT, f"{type(error).__name__}: {error}")
        return False
    return True


def _load_of(loads: list[Load], model_config: object) -> Load | None:
    for load in loads:
        if load.model_config is model_config:
            return load
    return None
