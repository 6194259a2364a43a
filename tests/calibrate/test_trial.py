"""A trial runs one decoder layer of each kind as the run would, and counts the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from harness.artifacts import KvFormat
from harness.calibrate import Asked, Extent, Trial, trial, try_calibration
from harness.errors import StageError
from tests.calibrate.conftest import Case, MakeCase

EXTENT = Extent(num_samples=6, num_tokens=96, num_batches=2)


def tried(case: Case, shown: list[set[str]]) -> Trial:
    def show(weights: Mapping[str, Tensor], amax: Mapping[str, float]) -> None:
        assert all(value > 0 for value in amax.values())
        shown.append({name.split(".layers.")[1].split(".")[0] for name in weights})

    asked = Asked(EXTENT, show)
    return try_calibration(case.recipe, case.source, case.inventory, case.plan, asked)


def test_one_layer_of_each_kind_stands_for_the_others(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    shown: list[set[str]] = []
    case = make_case(tiny_models["qwen3_5_moe"])
    found = tried(case, shown)
    text: Any = case.source.config["text_config"]
    types = text["layer_types"]
    firsts = sorted({types.index(kind) for kind in types})
    # Shown twice: the first time compiles what is compiled.
    assert shown == [{str(index)} for index in firsts for _ in range(2)]
    counts = [types.count(types[index]) for index in firsts]
    assert [layer.num_layers for layer in found.layers] == counts
    for layer in found.layers:
        assert layer.shown_s > 0
        assert layer.num_bytes > 0
        assert layer.run_s(2, 96) > 0
    assert found.read_rate > 0


def test_weights_alone_run_nothing(tiny_models: dict[str, Path], make_case: MakeCase) -> None:
    case = make_case(tiny_models["qwen3_moe"], inputs=None, kv_cache=KvFormat.NONE)
    found = tried(case, [])
    assert [layer.run_s(2, 96) for layer in found.layers] == [0.0]
    assert found.layers[0].shown_s > 0


def test_what_does_not_fit_is_tried_with_fewer_samples(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    ids = trial._random_ids  # noqa: SLF001  # shows the size of a batch

    def small(size: int, length: int, vocabulary: int) -> Tensor:
        sizes.append(size)
        if size > most:
            raise MemoryError
        return ids(size, length, vocabulary)

    monkeypatch.setattr(trial, "_random_ids", small)
    case, most = make_case(tiny_models["qwen3"]), 2
    assert tried(case, []).layers[0].run_s(2, 96) > 0
    assert max(sizes) == 3
    assert sizes[-1] == 1
    most = 0
    with pytest.raises(StageError, match="one sample of 16 tokens does not fit"):
        tried(case, [])
