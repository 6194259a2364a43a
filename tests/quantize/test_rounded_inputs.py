"""Inputs are rounded alike, whether experts get theirs one by one or all in one product."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from harness.artifacts import Linear, PlannedLinear, Slice
from harness.quantize import InputRounding

PARAMETER = "layers.0.experts.down_proj"
ENDS = [3, 3, 10, 12]
"""Of four experts, one of which gets nothing; two rows more are no expert's."""
WIDTH = 32


def expert(number: int, input_format: str) -> PlannedLinear:
    where = Slice(tensor=PARAMETER, expert=number)
    name = f"layers.0.experts.{number}.down_proj"
    linear = Linear(
        name=name,
        source=where,
        parameter=where,
        shape=(16, WIDTH),
        weight_quantizer=f"{name}.weight_quantizer",
        input_quantizer=f"{name}.input_quantizer",
        group=name,
        experts="layers.0.experts",
        expert=number,
    )
    return PlannedLinear(
        linear=linear, weight_format=input_format, input_format=input_format, rule="*"
    )


def rows() -> Tensor:
    return torch.randn(14, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()


@pytest.mark.parametrize(
    ("input_format", "experts", "scales"),
    [
        ("nvfp4", [0, 1, 2, 3], [0.002, 0.002, 0.002, 0.002]),
        ("fp8", [0, 1, 2, 3], [0.01, 0.02, 0.03, 0.04]),
        ("fp8", [2, 3], [0.03, 0.04]),
        ("fp8", [0, 1], [0.03, 0.03]),
    ],
)
def test_each_expert_s_rows_have_its_scale(
    input_format: str, experts: list[int], scales: list[float]
) -> None:
    planned = [expert(number, input_format) for number in experts]
    stored = {
        f"{one.linear.name}.input_scale": torch.tensor(scale)
        for one, scale in zip(planned, scales, strict=True)
    }
    rounding = InputRounding(planned, stored, "cpu")
    input_NI = rows()
    found_NI = rounding.rounded_together(PARAMETER, torch.tensor(ENDS), input_NI)
    assert found_NI is not None
    assert found_NI.shape == input_NI.shape
    for number, (begin, end) in enumerate(pairwise([0, *ENDS])):
        if begin == end:
            continue
        one_NI = rounding.rounded(PARAMETER, number, input_NI[begin:end])
        assert (one_NI is not None) == (number in experts)
        expected_NI = input_NI[begin:end] if one_NI is None else one_NI
        assert found_NI[begin:end].equal(expected_NI)
    assert not found_NI.equal(input_NI)


def test_what_is_not_planned_stays_as_it_is() -> None:
    rounding = InputRounding([], {}, "cpu")
    assert rounding.rounded(PARAMETER, 0, rows()) is None
    assert rounding.rounded_together(PARAMETER, torch.tensor(ENDS), rows()) is None
