"""The arms: a baseline measured beside the candidate, and who gets which GPU."""

import dataclasses
from pathlib import Path

import pytest

from harness import arms, baselines, shipped
from harness.artifacts import EngineSpec, Suite
from harness.recipe import load_suite

REFERENCE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
VLLM = EngineSpec(name="vllm", numerics="declared", device="cuda", dtype="bfloat16")


@pytest.fixture
def suite() -> Suite:
    whole = load_suite("canary")
    few = dataclasses.replace(whole.tasks[0], items=20)
    return dataclasses.replace(whole, tasks=(few,))


@pytest.mark.parametrize(
    ("visible", "size", "expected"),
    [
        ("0", 1, (None, None)),
        ("0,1", 1, ((0,), (1,))),
        ("4,5,6,7", 2, ((4, 5), (6, 7))),
        ("0,1,2", 2, (None, None)),
        ("", 1, (None, None)),
        ("GPU-8a3f,GPU-77b1", 1, (None, None)),
    ],
)
def test_the_arms_get_gpus_of_their_own_where_there_are_enough(
    monkeypatch: pytest.MonkeyPatch, visible: str, size: int, expected: tuple[object, object]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    engine = dataclasses.replace(VLLM, tensor_parallel_size=size)
    assert arms.assign_gpus(engine) == expected


@pytest.mark.parametrize(
    "engine", [REFERENCE, dataclasses.replace(VLLM, device="cpu")], ids=["reference", "cpu"]
)
def test_engines_without_gpus_share_the_machine(
    monkeypatch: pytest.MonkeyPatch, engine: EngineSpec
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert arms.assign_gpus(engine) == (None, None)


def test_a_baseline_measured_beside_is_found_by_the_run(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    model = shipped.canary() / "model"
    with arms.baseline_beside(REFERENCE, model, suite, key="k" * 64, gpus=None):
        pass
    with baselines.entry("k" * 64) as entry:
        written = (entry / "scorecard.json").stat().st_mtime_ns
    found = arms.measure_baseline(REFERENCE, model, suite, key="k" * 64)
    assert (found / "scorecard.json").stat().st_mtime_ns == written
    (tmp_path / "run").mkdir()
    card = arms.keep_baseline(found, tmp_path / "run")
    assert (card.arm, card.tasks[0].num_items) == ("baseline", 20)


def test_a_baseline_beside_is_stopped_when_the_candidate_fails(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    model = shipped.canary() / "model"

    def fail() -> None:
        with arms.baseline_beside(REFERENCE, model, suite, key="k" * 64, gpus=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with baselines.entry("k" * 64) as entry:
        assert not (entry / "scorecard.json").exists()
