"""Let the experts of a layer get the tokens in a second run that they got in the first.

Whether an expert's input differs between two runs can be said token by token only where both runs
send it the same tokens. Routers choose by hidden states, so two models choose otherwise now and
then. A module of experts is called with the hidden states and, behind them, with each token's
experts; what it is called with behind the hidden states is its routing. One that is called
otherwise has a routing of its own, which nobody can keep from outside.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
        self._paths = experts
        self._calls: Sequence[list[_Call]] = ()
        """Of each of them."""

    @contextmanager
    def recorded(self, layer: nn.Module) -> Iterator[None]:
        """Note the routing of what the layer runs in the context.

        Raises:
            ModelError: experts are not told which tokens are theirs.
        """
        self._calls = [[] for _ in self._paths]
        with ExitStack() as hooks:
            for path, calls in zip(self._paths, self._calls, strict=True):

                def note(
                    module: nn.Module,
                    arguments: tuple[Any, ...],
                    options: dict[str, Any],
                    calls: list[_Call] = calls,
                ) -> None:
                    if not _has_routing(arguments, options):
                        message = (
                            f"{type(module).__name__} of transformers is not told by its layer "
                            "which expert each token goes to, so that its inputs cannot be held "
                            "beside those of the unquantized model. Choose gptq in place of gptaq."
                        )
                        raise ModelError(message)
                    calls.append((arguments[1:], dict(options)))

                hooks.enter_context(_hooked(layer.get_submodule(path), note))
            yield

    @contextmanager
    def replayed(self, layer: nn.Module) -> Iterator[None]:
        """Let what the layer runs in the context have the routing that was noted."""
        with ExitStack() as hooks:
            for path, calls in zip(self._paths, self._calls, strict=True):
                waiting = iter(calls)

                def replace(
                    _: nn.Module,
                    arguments: tuple[Any, ...],
                    options: dict[str, Any],
                    waiting: Iterator[_Call] = waiting,
                ) -> _Call:
                    routing, others = next(waiting, (arguments[1:], options))
                    return (*arguments[:1], *routing), options | others

                hooks.enter_context(_hooked(layer.get_submodule(path), replace))
            yield


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


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
