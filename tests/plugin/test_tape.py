"""A tensor of the files is followed through whatever a loader does with it."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.plugin.harness_vllm.ledger import Parameter, ParameterPart, Reconciled, reconcile
from harness.plugin.harness_vllm.tape import Tape, spans

Load = Callable[[Tensor, Tensor], object]

LOADS: dict[str, Load] = {
    "copy": lambda p, t: p.copy_(t),
    "cast": lambda p, t: p.copy_(t.to(torch.float64).float()),
    "set item": lambda p, t: p.__setitem__(slice(None), t),
    "rows": lambda p, t: [p[i].copy_(t.narrow(0, i, 1)[0]) for i in range(4)],
    "columns": lambda p, t: [p[:, i].copy_(t[:, i]) for i in range(6)],
    "transposed": lambda p, t: p.t().copy_(t.t().contiguous()),
    "joined": lambda p, t: p.copy_(torch.cat([t[:2], t[2:]])),
    "stacked": lambda p, t: p.copy_(torch.stack(list(t))),
    "by index": lambda p, t: p.index_copy_(0, torch.arange(4), t),
    "through a buffer": lambda p, t: p.copy_(torch.zeros(4, 6).copy_(t)),
    "many at once": lambda p, t: torch._foreach_copy_([p[:2], p[2:]], [t[:2], t[2:]]),
}


def loaded(load: Load) -> tuple[Tape, Tensor]:
    parameter, tensor = torch.empty(4, 6), torch.ones(4, 6)
    tape = Tape()
    tape.watch([parameter])
    with tape:
        tape.mark("tensor", tensor)
        load(parameter, tensor)
    return tape, parameter


def compared(tape: Tape, tensor: Tensor, *parts: ParameterPart) -> Reconciled:
    return reconcile(
        [Parameter(tensor, parts, is_padded=False)], tape, in_files=["tensor"], set_aside=None
    )


@pytest.mark.parametrize("name", LOADS)
def test_a_tensor_is_followed_into_its_parameter(name: str) -> None:
    tape, parameter = loaded(LOADS[name])
    found = compared(tape, parameter, ParameterPart("whole", (0, 96)))
    assert (found.unfilled, found.untaken, found.num_taken) == ((), (), 1)


def test_a_scalar_is_followed_through_a_number() -> None:
    parameter, tensor = torch.empty(1), torch.tensor(0.25)
    tape = Tape()
    tape.watch([parameter])
    with tape:
        tape.mark("tensor", tensor)
        parameter.fill_(tensor.item())
    assert compared(tape, parameter, ParameterPart("scale", (0, 4))).unfilled == ()


def test_a_part_that_was_not_written_is_a_hole() -> None:
    tape, parameter = loaded(lambda p, t: p[:3].copy_(t[:3]))
    parts = [ParameterPart(f"row {i}", (24 * i, 24 * (i + 1))) for i in range(4)]
    assert compared(tape, parameter, *parts).unfilled == ("row 3",)


def test_a_part_that_was_written_in_part_is_a_hole() -> None:
    tape, parameter = loaded(lambda p, t: p[:, :5].copy_(t[:, :5]))
    assert compared(tape, parameter, ParameterPart("whole", (0, 96))).unfilled == ("whole",)


def test_zeros_of_a_padding_fill_but_are_no_tensor() -> None:
    tape, parameter = loaded(lambda p, t: [p[:2].copy_(t[:2]), p[2:].zero_()])
    assert compared(tape, parameter, ParameterPart("whole", (0, 96))).unfilled == ()
    assert compared(tape, parameter, ParameterPart("rest", (48, 96))).unfilled == ("rest",)


def test_memory_that_is_used_again_is_not_taken_for_what_it_held() -> None:
    tape, parameter = loaded(lambda p, t: [t.to(torch.float64), p.copy_(torch.ones(4, 6))])
    found = compared(tape, parameter, ParameterPart("whole", (0, 96)))
    assert (found.unfilled, found.untaken) == (("whole",), ("tensor",))


def test_a_tensor_that_was_only_looked_at_is_not_taken() -> None:
    tape, parameter = loaded(lambda p, t: p.fill_(t.abs().max().item() + 1))
    assert compared(tape, parameter).untaken == ("tensor",)


def test_what_is_set_aside_is_not_missed() -> None:
    found = reconcile([], Tape(), in_files=["mtp.fc.weight", "x"], set_aside=re.compile("mtp"))
    assert (found.untaken, found.num_set_aside) == (("x",), 1)


def test_gate_does_not_fill_the_scale_it_shares_with_up() -> None:
    tape, parameter = Tape(), torch.empty(2)
    tape.watch([parameter])
    with tape:
        for expert, projection in ((0, "gate"), (0, "up"), (1, "gate")):
            scale = torch.tensor(0.5)
            tape.mark(f"experts.{expert}.{projection}.scale", scale)
            parameter[expert] = scale
    parts = [
        ParameterPart(f"{expert} {projection}", (4 * expert, 4 * expert + 4), re.compile(other))
        for expert in range(2)
        for projection, other in (("gate", "up"), ("up", "gate"))
    ]
    assert compared(tape, parameter, *parts).unfilled == ("1 up",)


def test_the_spans_of_a_view_are_its_rows() -> None:
    base = torch.empty(4, 6)
    assert list(spans(base)) == [(0, 96)]
    assert list(spans(base[1:3])) == [(24, 72)]
    assert list(spans(base[:, 2:4])) == [(24 * i + 8, 24 * i + 16) for i in range(4)]
    assert list(spans(base[2, 3])) == [(60, 64)]
    assert list(spans(base[:0])) == []
