"""Models of which some parts compute in float32, beside layers in bfloat16.

Where such a part hands its result on as it is, transformers multiplies float32 with bfloat16, which
torch refuses (DeepSeek V4's hyper-connections). Engines bring the factors to the narrower type.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

PRODUCTS = frozenset({torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm})
"""Products other than linear functions that weights take part in; `@` is one of them."""


@contextmanager
def mixed_types_run(model: nn.Module) -> Iterator[None]:
    """Let products of two types run in the context, for a model that has parameters of several."""
    types = {one.dtype for one in model.state_dict().values() if one.is_floating_point()}
    if len(types) == 1:
        yield
        return
    with _NarrowerType():
        yield


class _NarrowerType(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        del types
        if (func is nn.functional.linear or func in PRODUCTS) and len(args) > 1:
            left, right, *others = args
            args = (*_of_one_type(left, right), *others)
        return func(*args, **(kwargs or {}))


def _of_one_type(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    if left.dtype == right.dtype:
        return left, right
    dtype = min(left.dtype, right.dtype, key=lambda one: one.itemsize)
    return left.to(dtype), right.to(dtype)
