"""Experts are chosen in torch as the operator chooses them, where CPU has none."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch


def topk_softmax(topk_weights: object, *rest: object, renormalize: bool = False) -> None:
    raise NotImplementedError


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stand in for vLLM's operators, ours put in where there is none."""
    fake: Any = ModuleType("vllm._custom_ops")
    fake.topk_softmax = fake.topk_sigmoid = topk_softmax
    package: Any = ModuleType("vllm")
    vars(package)["_custom_ops"] = fake
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm._custom_ops", fake)
    name = "harness.plugin.harness_vllm.cpu_topk"
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.import_module(name).install()
    yield fake
    del sys.modules[name]


def chosen(operator: Any, logits: torch.Tensor, **given: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401  # an operator
    weights, ids = torch.empty(2, 2), torch.empty(2, 2, dtype=torch.int32)
    places = torch.empty(2, 2, dtype=torch.int32)
    operator(weights, ids, places, logits, **given)
    return weights, ids, places


LOGITS = torch.tensor([[0.0, 3.0, 1.0, 1.0], [2.0, -1.0, 0.0, 0.5]])


def test_the_best_experts_are_chosen_and_the_lower_number_of_equals(ops: Any) -> None:  # noqa: ANN401
    weights, ids, places = chosen(ops.topk_softmax, LOGITS)
    assert ids.tolist() == [[1, 2], [0, 3]]
    assert places.tolist() == [[0, 2], [1, 3]]
    assert torch.equal(weights, LOGITS.softmax(-1).gather(-1, ids.long()))


def test_weights_are_brought_to_one_where_asked(ops: Any) -> None:  # noqa: ANN401
    weights, _, _ = chosen(ops.topk_softmax, LOGITS, renormalize=True, is_padding=None)
    assert torch.allclose(weights.sum(-1), torch.ones(2))


def test_a_bias_counts_in_the_choice_alone(ops: Any) -> None:  # noqa: ANN401
    bias = torch.tensor([9.0, 0.0, 0.0, 0.0])
    weights, ids, _ = chosen(
        ops.topk_sigmoid, LOGITS, e_score_correction_bias=bias, routed_scaling_factor=2.0
    )
    assert ids[0].tolist() == [0, 1]
    assert weights[0, 0] == 1.0


def test_what_is_not_known_is_refused(ops: Any) -> None:  # noqa: ANN401
    with pytest.raises(NotImplementedError, match=r"asked for \['softcap'\]"):
        chosen(ops.topk_softmax, LOGITS, softcap=3)
