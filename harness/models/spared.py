"""What transformers imports with the classes of models, and nothing here uses, is left out.

Imports are most of what passes before a GPU has its first layer (docs/measured.md).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import RLock

import torch

_TAKEN_FOR_ABSENT = ("sklearn", "scipy")
"""Assisted generation asks for the first, which brings pandas; losses ask for the second."""
_ONE_AT_A_TIME = RLock()
_KERNELS, _MODELS_OF_ITS_OWN = "fla", ("fla.layers", "fla.models")
"""Of flash-linear-attention single kernels are used. It takes its own models for optional."""


@contextmanager
def sparing_imports() -> Iterator[None]:
    """Import classes of transformers, in this context or function, without what is not used."""
    # Whoever decorates a function with it imports torch's compiler, and no thread of this process
    # compiles anything. A variable of the environment that says so would reach servers that are
    # started meanwhile.
    with _ONE_AT_A_TIME:
        before = torch.compile
        vars(torch)["compile"] = _uncompiled
        try:
            _ask_for_absent()
            _import_kernels()
            yield
        finally:
            vars(torch)["compile"] = before


def _uncompiled(model: Callable[..., object] | None = None, **_options: object) -> object:
    """Return a function as it is, or what does so to one; called as torch.compile is."""
    return _uncompiled if model is None else model


@cache  # once, before threads score: they may import these packages for themselves
def _ask_for_absent() -> None:
    """Let transformers answer, and remember, that it does not find what is not used."""
    absent = [package for package in _TAKEN_FOR_ABSENT if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is what is absent
    try:
        from transformers.utils import import_utils  # noqa: PLC0415 -- takes seconds, and asks

        for package in absent:
            getattr(import_utils, f"is_{package}_available")()
    finally:
        for package in absent:
            del sys.modules[package]


def _import_kernels() -> None:
    """Import flash-linear-attention without its models, where it can be had so."""
    if _KERNELS in sys.modules or find_spec(_KERNELS) is None:
        return
    sys.modules.update(dict.fromkeys(_MODELS_OF_ITS_OWN))  # type: ignore[arg-type]  # as there
    try:
        # An older version needs them, and is left to who wants it, for transformers takes
        # whatever goes wrong with it for a sign to use torch's slow way.
        with suppress(Exception):
            import_module(_KERNELS)
    finally:
        for name in _MODELS_OF_ITS_OWN:
            del sys.modules[name]
