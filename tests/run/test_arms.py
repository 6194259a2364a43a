"""The arms: a baseline measured beside the candidate, and who gets which GPU."""

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import arms, baselines
from harness.artifacts import EngineSpec, Suite
from harness.errors import EvidenceError, ReasonCode
from harness.models import open_source
from harness.recipe import load_suite
from tests.tiers import slow

REFERENCE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
VLLM = EngineSpec(name="vllm", numerics="declared", device="cuda", dtype="bfloat16")
Background = Callable[[arms.BaselineOrder], AbstractContextManager[arms.Background]]


@pytest.fixture
def suite() -> Suite:
    whole = load_suite("canary")
    few = dataclasses.replace(whole.tasks[0], items=20)
    return dataclasses.replace(whole, tasks=(few,), smoke=None)


def order_of(suite: Suite) -> arms.BaselineOrder:
    source = open_source("canary")
    inputs = baselines.inputs_of(source, REFERENCE, suite)
    return arms.BaselineOrder(REFERENCE, source.path, suite, inputs)


@pytest.fixture
@slow("the baseline is measured in a process of its own, which imports torch and lm-eval anew")
def measured_in_background() -> Background:
    return arms.measured_in_background


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


def test_a_baseline_measured_in_the_background_is_found_by_the_run(
    suite: Suite,
    measured_in_background: Background,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    order = order_of(suite)
    with measured_in_background(order):
        pass
    with baselines.entry(order.inputs.key) as entry:
        written = (entry / "scorecard.json").stat().st_mtime_ns
    found = arms.measure_baseline(order)
    assert (found / "scorecard.json").stat().st_mtime_ns == written
    (tmp_path / "run").mkdir()
    card = arms.keep_baseline(found, tmp_path / "run")
    assert (card.arm, card.tasks[0].num_items) == ("baseline", 20)


def test_a_baseline_in_the_background_is_stopped_when_the_candidate_fails(
    suite: Suite,
    measured_in_background: Background,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    order = order_of(suite)

    def fail() -> None:
        with measured_in_background(order):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with baselines.entry(order.inputs.key) as entry:
        assert not (entry / "scorecard.json").exists()


def test_what_goes_wrong_in_the_background_is_handed_over_as_it_is(
    suite: Suite,
    measured_in_background: Background,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    (tmp_path / "config.json").write_text("{}")
    with measured_in_background(order_of(suite)._replace(model=tmp_path)) as measuring:
        failure = measuring.wait()
    assert isinstance(failure, EvidenceError)
    assert str(tmp_path) in str(failure)
    assert failure.reason is ReasonCode.EVIDENCE_CHANGED


def rerun_share(order: arms.BaselineOrder) -> float | None:
    entry = baselines.read_entry(arms.measure_baseline(order))
    return entry.rerun.share if entry and entry.rerun else None


def test_a_second_run_grows_when_more_of_it_is_asked_and_never_shrinks(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    order = order_of(suite)
    assert rerun_share(order) == baselines.RERUN_SHARE
    folder = baselines.folder_of(order.inputs.key)
    first = (folder / "scorecard.json").stat().st_mtime_ns
    assert rerun_share(order._replace(rerun_share=1.0)) == 1.0
    assert rerun_share(order) == 1.0
    assert (folder / "scorecard.json").stat().st_mtime_ns == first


def test_an_entry_of_an_older_version_gets_its_second_run_and_keeps_its_first(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    order = order_of(suite)
    folder = arms.measure_baseline(order)
    first = (folder / "scorecard.json").stat().st_mtime_ns
    shutil.rmtree(folder / "again")
    (folder / "entry.json").unlink()
    assert rerun_share(order) == baselines.RERUN_SHARE
    assert (folder / "scorecard.json").stat().st_mtime_ns == first


def test_a_smoke_set_that_is_new_is_asked_and_nothing_is_scored_again(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    folder = arms.measure_baseline(order_of(suite))
    before = {
        p: p.stat().st_mtime_ns for p in folder.rglob("*.json*") if p.name != "deployment.json"
    }
    whole = load_suite("canary").smoke
    assert whole is not None
    few = dataclasses.replace(
        whole, passages=whole.passages[:1], asks=whole.asks[:1], digest="f" * 64
    )
    asked = dataclasses.replace(suite, smoke=few)
    assert arms.measure_baseline(order_of(asked)) == folder
    assert arms.read_probe(folder, few) is not None
    assert {p: p.stat().st_mtime_ns for p in before} == before
