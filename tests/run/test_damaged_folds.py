"""Damage of a folded checkpoint that is small beside the rest, as powers of two leave it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.run.test_smoothing import LAYER, Made, Tensors, dense, failed, made_up, power

__all__ = ["dense", "made_up"]  # fixtures

KEY, DOWN, UP = f"{LAYER}.self_attn.k_proj", f"{LAYER}.mlp.down_proj", f"{LAYER}.mlp.up_proj"
HALF = torch.tensor([0, 1, 1, 2, 2, 3, 4, 5], dtype=torch.uint8)
"""The code of half of each code's value, or near it."""
Edit = Callable[[Tensor], Tensor]


def zero(codes: Tensor) -> Tensor:
    return torch.zeros_like(codes)


def halved(codes: Tensor) -> Tensor:
    return HALF[(codes & 7).long()] | (codes & 8)


def turned(codes: Tensor) -> Tensor:
    """Other values of about the same size: each row has those of the next."""
    return codes.roll(1, 0)


def columns(tensors: Tensors, layer: str, which: Tensor, edit: Edit) -> None:
    """Change the codes of some columns of one weight."""
    packed = tensors[f"{layer}.weight"]
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    codes[:, which] = edit(codes[:, which])
    tensors[f"{layer}.weight"] = codes[:, ::2] | (codes[:, 1::2] << 4)


def exponents(tensors: Tensors, plain: Tensors) -> Tensor:
    """Return what the columns of all that reads the first norm were multiplied with."""
    name = f"{LAYER}.input_layernorm.weight"
    return -power(tensors[name], plain[name])


def small_columns_zeroed(tensors: Tensors, plain: Tensors) -> None:
    k = exponents(tensors, plain)
    columns(tensors, KEY, k == k.min(), zero)


def small_columns_exchanged(tensors: Tensors, plain: Tensors) -> None:
    k = exponents(tensors, plain)
    columns(tensors, KEY, k == k.min(), turned)


def unchanged_columns_zeroed(tensors: Tensors, plain: Tensors) -> None:
    columns(tensors, KEY, exponents(tensors, plain) == 0, zero)


def one_small_column_halved(tensors: Tensors, plain: Tensors) -> None:
    columns(tensors, KEY, exponents(tensors, plain).argmin()[None], halved)


def one_large_column_halved(tensors: Tensors, plain: Tensors) -> None:
    columns(tensors, KEY, exponents(tensors, plain).argmax()[None], halved)


def one_unchanged_column_halved(tensors: Tensors, plain: Tensors) -> None:
    columns(tensors, KEY, (exponents(tensors, plain) == 0).nonzero()[0], halved)


def one_column_after_rows_halved(tensors: Tensors, plain: Tensors) -> None:
    """Its powers are those of rows before it, and not of a norm."""
    del plain
    columns(tensors, DOWN, torch.tensor([5]), halved)


def small_rows_zeroed(tensors: Tensors, plain: Tensors) -> None:
    """Rows that were divided, or others of the weight that has such."""
    del plain
    tensors[f"{UP}.weight"][5::9] = 0


def other_rows_zeroed(tensors: Tensors, plain: Tensors) -> None:
    del plain
    tensors[f"{UP}.weight"][6::18] = 0


def one_row_halved(tensors: Tensors, plain: Tensors) -> None:
    del plain
    tensors[f"{UP}.weight_scale"][7] = (tensors[f"{UP}.weight_scale"][7].float() / 2).to(
        torch.float8_e4m3fn
    )


def one_row_of_a_reader_zeroed(tensors: Tensors, plain: Tensors) -> None:
    del plain
    tensors[f"{KEY}.weight"][3] = 0


@pytest.mark.parametrize(
    "damage",
    [
        small_columns_zeroed,
        small_columns_exchanged,
        unchanged_columns_zeroed,
        one_small_column_halved,
        one_large_column_halved,
        one_unchanged_column_halved,
        one_column_after_rows_halved,
        small_rows_zeroed,
        other_rows_zeroed,
        one_row_halved,
        one_row_of_a_reader_zeroed,
    ],
)
@pytest.mark.parametrize("made", ["dense", "made_up"])
def test_small_damage_is_an_error(
    made: str,
    damage: Callable[[Tensors, Tensors], None],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    one: Made = request.getfixturevalue(made)
    broken = one.changed(damage, tmp_path / "broken")
    assert failed(broken, one.source) & {"unquantized-tensors-copied", "weights-near-source"}


def test_codes_that_are_written_back_unchanged_are_none(dense: Made, tmp_path: Path) -> None:
    def same(tensors: Tensors, plain: Tensors) -> None:
        del plain
        columns(tensors, KEY, torch.arange(64), torch.clone)

    assert not failed(dense.changed(same, tmp_path / "same"), dense.source)
