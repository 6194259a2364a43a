"""Fill a model with its weights, one tensor at a time.

transformers' from_pretrained could do it for an unquantized source, but holds fused experts twice
while it merges them, and cannot take weights from elsewhere: the reference engine dequantizes an
exported checkpoint on the fly. Here every weight is copied straight to its place, so the peak is
the model plus one tensor.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.artifacts import Inventory, Linear
from harness.errors import ModelError
from harness.models.dtypes import header_dtype
from harness.models.reader import TensorReader
from harness.models.slices import cut
from harness.models.source import Source
from harness.models.structure import build_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(
    source: Source,
    inventory: Inventory,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    matrix: Callable[[Linear], Tensor] | None = None,
) -> "PreTrainedModel":
    """Return the running model in eval mode, every parameter filled and cast to `dtype`.

    `matrix` gives the weight [out, in] of a linear layer; by default it is read from `source`.

    Raises:
        ModelError: a tensor cannot be read, or does not fit its place.
    """
    model = build_model(source, device=torch.device(device), dtype=dtype)
    keep_wide(model, inventory, dtype)
    with TensorReader(source) as reader:
        fill(model, inventory, reader=reader, matrix=matrix)
    return ready(model, source)


def keep_wide(model: "PreTrainedModel", inventory: Inventory, dtype: torch.dtype) -> None:
    """Let what transformers never rounds keep its type, such as biases of some routers.

    Only what the files store in it: more precision is not made up, and some families cannot run
    with more in one place than in another.

    Source: transformers, modeling_utils.py, `from_pretrained`: the plan of types.
    """
    from transformers.core_model_loading import (  # noqa: PLC0415 -- takes seconds
        build_glob_alternation,
    )

    plan = model._get_dtype_plan(dtype)  # noqa: SLF001  # no public one
    if not plan:
        return
    pattern, keys, _ = build_glob_alternation(list(plan))
    for name, value in model.state_dict(keep_vars=True).items():
        found, tensor = pattern.search(name), inventory.others.get(name)
        if found is not None and found.lastgroup is not None and tensor is not None:
            wide: torch.dtype = plan[keys[found.lastgroup]]
            if inventory.tensors[tensor].dtype == header_dtype(wide):
                value.data = value.data.to(wide)


def fill(
    model: nn.Module,
    inventory: Inventory,
    *,
    reader: TensorReader,
    matrix: Callable[[Linear], Tensor] | None = None,
) -> None:
    """Copy weights to their places in a running model.

    Args:
        model: all of it, or without some of its layers.
        inventory: of the model.
        reader: of its files.
        matrix: gives the weight [out, in] of a linear layer; None to read it.

    Raises:
        ModelError: a tensor cannot be read, or does not fit its place.
    """
    state: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
    with torch.no_grad():
        linears = set[str]()
        for linear in inventory.linears:
            where = linear.parameter
            if where.tensor in state:
                linears.add(where.tensor)
                value = reader.matrix(linear.source) if matrix is None else matrix(linear)
                _fill(linear.name, place=cut(state[where.tensor], where), value=value)
        for piece in inventory.pieces:
            if (where := piece.parameter).tensor in state:
                linears.add(where.tensor)
                value = cut(reader.tensor(piece.source.tensor), piece.source)
                place = cut(state[where.tensor], where)
                _fill(piece.source.tensor, place=place, value=value.reshape(place.shape))
        filled: dict[int, str] = {}
        for parameter, name in inventory.others.items():
            if parameter not in state:
                continue
            place, value = state[parameter], reader.tensor(name)
            if filled.setdefault(id(place), name) != name and not torch.equal(
                place, value.to(place)
            ):
                message = (
                    f"'{name}' and '{filled[id(place)]}' are tied in config.json but differ in the "
                    "files. Set tie_word_embeddings to false in config.json."
                )
                raise ModelError(message)
            _fill(name, place=place, value=value)
    _refuse_unfilled(model, {*filled, *(id(state[name]) for name in linears)})


def ready(model: "PreTrainedModel", source: Source) -> "PreTrainedModel":
    """Return the model in eval mode, with the defaults of generation that its folder states."""
    _read_generation_config(model, source)
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model


def _refuse_unfilled(model: nn.Module, filled: AbstractSet[int]) -> None:
    """Refuse a model that would compute with memory that nobody has written."""
    for name, parameter in model.named_parameters():
        if id(parameter) not in filled:
            message = (
                f"'{name}' of the model comes from no tensor of the files. Download the model "
                "again, or report its family as a bug."
            )
            raise ModelError(message)


def _fill(name: str, *, place: Tensor, value: Tensor) -> None:
    if place.shape != value.shape:
        message = (
            f"'{name}' has the shape {list(value.shape)}, but its place in the model has "
            f"{list(place.shape)}. Correct config.json, or download the model again."
        )
        raise ModelError(message)
    place.copy_(value)


def _read_generation_config(model: "PreTrainedModel", source: Source) -> None:
    """Take over the ends of text and other defaults that the model's folder states."""
    if (source.path / "generation_config.json").is_file():
        from transformers import GenerationConfig  # noqa: PLC0415 -- takes seconds

        model.generation_config = GenerationConfig.from_pretrained(source.path)
