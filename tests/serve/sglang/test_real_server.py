"""A real SGLang on a GPU: pytest -m gpu, with its environment in $HARNESS_SGLANG."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import shipped
from harness.artifacts import Endpoint, EngineSpec
from harness.serve import resolve_engine, serve
from tests.nouns import engine_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("HARNESS_SGLANG" not in os.environ, reason="needs HARNESS_SGLANG"),
]
SMALL = ("mem-fraction-static=0.2", "max-total-tokens=131072", "max-running-requests=64")


@pytest.fixture
def real() -> EngineSpec:
    wanted = os.environ.get("HARNESS_SGLANG_ARGS", "").split()
    found = engine_spec("sglang", place=None, max_model_len=256, arguments=(*SMALL, *wanted))
    return resolve_engine(found)


@pytest.mark.parametrize("qformat", ["nvfp4_experts_only", "fp8"])
def test_a_real_sglang_loads_every_part_of_the_canary(
    real: EngineSpec, exported: Callable[..., Path], qformat: str, tmp_path: Path
) -> None:
    """FP8 has one scale for the three shards of a linear attention, which older loaders split."""
    folder = exported(shipped.canary(), qformat)
    with serve(real, folder, records=tmp_path / "records") as served:
        assert isinstance(served, Endpoint)
        found = served.deployment
    assert found.loaded is not None
    assert found.loaded.num_filled == found.loaded.num_parameters
    assert found.not_observed == ()
    assert [one.id for one in found.findings if one.id != "engine-untested"] == []
    assert f"weights:{'fp8' if qformat == 'fp8' else 'nvfp4'}" in found.exercised
