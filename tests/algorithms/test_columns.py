"""Columns that GPTQ must not turn into others, as `harness verify` asks of smoothed weights."""

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.algorithms import SecondMoments, gptq
from harness.algorithms.columns import distances
from harness.formats.nvfp4 import in_blocks
from harness.verify import gains
from tests.algorithms.test_scales import heavy

ROOT_2 = 2**0.5


def verified(done: Tensor, weight: Tensor) -> bool:
    """Return whether `harness verify` takes one weight for its source, without any powers."""
    found = gains.Gains((weight.shape[0], weight.shape[1]))
    none = tuple(np.zeros(size, np.int32) for size in weight.shape)
    found.add(0, done.numpy(), weight.numpy(), none)
    return found.are_near()


def changed(weight: Tensor, column: int, factor: float) -> Tensor:
    done = weight.clone()
    done[:, column] *= factor
    return done


def rarely_used(width: int = 64, rare: int = 5) -> tuple[Tensor, SecondMoments]:
    """Return a weight, and inputs of which one feature is small, and goes with the others."""
    generator = torch.Generator().manual_seed(21)
    weight = torch.randn(2, 32, width, generator=generator) * 0.02
    x = torch.randn(2, 4096, width, generator=generator)
    x[..., rare] = 0.1 * (x.sum(-1) / width**0.5 + 0.3 * x[..., rare])
    return weight, SecondMoments(x.mT @ x, torch.tensor([4096, 4096]))


def rounded(weight: Tensor, moments: SecondMoments) -> Tensor:
    largest = in_blocks(weight).abs().amax(-1)
    scale = (largest / 6 / 1e-4).to(torch.float8_e4m3fn)
    return gptq.made_up(weight, scale.float() * 1e-4, moments, damping=0.01)


@pytest.mark.parametrize("factor", [0.5, 0.69, 0.72, 0.9, 1.0, 1.4, 1.43, 2.0, -1.0])
def test_verify_and_gptq_ask_the_same_of_a_column(factor: float) -> None:
    weight = heavy(1, 48, 64)[0]
    done = changed(weight, 7, factor)
    near = bool((distances(done[None], weight[None]) <= ROOT_2).all())
    assert near == verified(done, weight)
    assert near == (0.71 < factor < 1.41)


def test_both_take_large_values_alone_for_what_tells_of_a_column() -> None:
    weight = heavy(1, 48, 64)[0].clamp(-1, 1)
    weight[:40, 8] = 1.0
    weight[:40, 7] = 0.2  # below a quarter of what is beside it
    weight[40:, 7] = 0.5
    weight[40:, 8] = 1.0
    done = weight.clone()
    done[:40, 7] *= 3
    assert float(distances(done[None], weight[None])[0, 7]) == pytest.approx(1.0)
    assert verified(done, weight)
    done[40:, 7] *= 2
    assert float(distances(done[None], weight[None])[0, 7]) == pytest.approx(2.0)
    assert not verified(done, weight)


def test_both_let_a_column_become_nothing_that_is_next_to_nothing() -> None:
    weight = heavy(1, 48, 64)[0]
    weight[:, 8] = 5.0
    for share, near in ((0.03, True), (0.06, False)):
        weight[:, 7] = share * weight[:, :16].abs().amax(1)
        done = changed(weight, 7, 0.0)
        assert bool(distances(done[None], weight[None])[0, 7] <= ROOT_2) == near
        assert verified(done, weight) == near


def test_a_column_of_zeros_must_stay_one() -> None:
    weight = heavy(1, 48, 64)
    weight[..., 7] = 0
    assert float(distances(weight, weight)[0, 7]) == 1
    done = weight.clone()
    done[..., 7] = weight.abs().amax()
    assert float(distances(done, weight)[0, 7]) == torch.inf


def test_a_value_that_is_no_number_is_far() -> None:
    weight = heavy(1, 48, 64)
    for value in (torch.nan, torch.inf):
        done = weight.clone()
        done[0, 3, 7] = value
        assert float(distances(done, weight)[0, 7]) == torch.inf


def test_a_feature_that_few_inputs_use_keeps_its_column() -> None:
    weight, moments = rarely_used()
    assert float(distances(rounded(weight, moments), weight).max()) <= 1.3


def test_without_that_it_would_make_up_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = rarely_used()
    monkeypatch.setattr(gptq, "_FAR", torch.inf)
    assert float(distances(rounded(weight, moments), weight)[:, 5].max()) > 2


def test_others_make_up_for_a_column_that_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output loses as little as where one may be anything, to a few percent."""
    weight, moments = rarely_used()
    found = rounded(weight, moments)
    monkeypatch.setattr(gptq, "_FAR", torch.inf)
    free = rounded(weight, moments)
    lost, lost_free = (
        float(((one - weight) @ moments.sums * (one - weight)).sum()) for one in (found, free)
    )
    assert lost < 1.1 * lost_free


def test_a_weight_that_is_near_is_left_as_it_is_beside_one_that_is_not() -> None:
    weight, moments = rarely_used()
    sums = moments.sums.clone()
    sums[1] = torch.eye(64) * 4096
    found = rounded(weight, SecondMoments(sums, moments.tokens_E))
    assert torch.equal(
        found[1], rounded(weight[1:], SecondMoments(sums[1:], moments.tokens_E[1:]))[0]
    )


def test_a_weight_is_done_again_once_and_alone() -> None:
    weight, moments = rarely_used()
    calls: list[int] = []
    whole = SecondMoments.whole

    def counted(self: SecondMoments, *, damping: float | Tensor) -> Tensor:
        calls.append(len(self.sums))
        return whole(self, damping=damping)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SecondMoments, "whole", counted)
        rounded(weight, moments)
    assert calls == [2, 1]  # the other is near as it is
