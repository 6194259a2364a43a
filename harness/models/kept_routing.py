"""Let the experts of a layer get the tokens in a second run that they got in the first.

Whether an expert's input differs between two runs can be said token by token only where both runs
send it the same tokens. Routers choose by hidden states, so two models choose otherwise now and
then. A module of experts is called with the hidden states and, behind them, with each token's
experts; what it is called with behind the hidden states is its routing. One that is called
otherwise has a routing of its own, which nobody can keep from outside.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import ModelError

_NUMBERS = frozenset({torch.int32, torch.int64})
_Call = tuple[tuple[Any, ...], dict[str, Any]]


class KeptRouting:
    """The routing of one run of a layer, for a run of the same layer or of a copy of it."""

    def __init__(self, experts: Sequence[str]) -> None:
        """Take the paths, in the layer, of the modules that hold experts."""
        self._calls: Mapping[str, deque[_Call]] = {path: deque() for path in experts}

    def recorded(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Note the routing of what the layer runs in the context.

        Raises:
            ModelError: experts are not told which tokens are theirs.
        """
        return self._hooked(layer, _note)

    def replayed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Let what the layer runs in the context have the routing that was noted, once."""
        return self._hooked(layer, _replace)

    @contextmanager
    def _hooked(self, layer: nn.Module, hook: Callable[..., object]) -> Iterator[None]:
        with ExitStack() as undo:
            for path, calls in self._calls.items():
                module = layer.get_submodule(path)
                handle = module.register_forward_pre_hook(partial(hook, calls), with_kwargs=True)
                undo.callback(handle.remove)
            yield


def _note(
    calls: deque[_Call], module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    if not _has_routing(arguments, options):
        message = (
            f"{type(module).__name__} of transformers is not told by its layer which expert each "
            "token goes to, so that its inputs cannot be held beside those of the unquantized "
            "model. Choose gptq in place of gptaq."
        )
        raise ModelError(message)
    calls.append((arguments[1:], dict(options)))


def _replace(
    calls: deque[_Call], _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
) -> _Call:
    routing, others = calls.popleft()
    return (*arguments[:1], *routing), options | others


def _has_routing(arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Return whether numbers of experts, a row for each token, stand behind the hidden states."""
    if not arguments or not isinstance(arguments[0], Tensor):
        return False
    num_tokens = arguments[0].numel() // arguments[0].shape[-1]
    tensors = (one for one in (*arguments[1:], *options.values()) if isinstance(one, Tensor))
    return any(
        one.dtype in _NUMBERS and one.ndim > 1 and one.shape[:-1].numel() == num_tokens
        for one in tensors
    )
