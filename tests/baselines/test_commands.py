"""Baselines that are measured: on the canary with the reference engine, through the commands."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import baselines, shipped
from harness.baselines import Kept
from harness.models import Source
from harness.preflight import preflight
from harness.recipe import Request
from tests.typed import typed


@pytest.fixture(scope="module")
def measured(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with one baseline that `harness baseline add` has measured."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_BASELINES", str(store))
        done = typed(*add(tiny_suite))
        assert done.code == 0, done.err
        assert done.out.startswith("kept ")
        yield store


def add(suite: Path) -> tuple[object, ...]:
    return ("baseline", "add", "--model", "canary", "--suite", suite, "--engine", "reference")


def only(store: Path) -> Kept:
    (kept,) = baselines.kept_baselines()
    assert kept.folder.parent == store
    return kept


def test_a_baseline_that_is_added_is_run_twice_and_whole(measured: Path) -> None:
    rerun = only(measured).entry.rerun
    assert rerun is not None
    assert (rerun.share, rerun.num_items) == (1.0, 60)


def test_the_second_run_in_this_process_makes_other_batches(measured: Path) -> None:
    """The same batches would make the same sums, and an A/A of nothing."""
    folder = only(measured).folder
    sizes = [
        json.loads(json.loads((part / "scorecard.json").read_text())["generation"]["canary_add"])
        for part in (folder, folder / "again")
    ]
    assert sizes[0].pop("batch_size") == 2 * sizes[1].pop("batch_size")
    assert sizes[0] == sizes[1]


def test_adding_it_again_measures_nothing(measured: Path, tiny_suite: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in measured.rglob("*.json*")}
    done = typed(*add(tiny_suite))
    assert done.code == 0
    assert {p: p.stat().st_mtime_ns for p in measured.rglob("*.json*")} == before


def test_a_quantized_model_is_no_baseline(tiny_suite: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(shipped.canary() / "model", tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "FP8"}
    (model / "config.json").write_text(json.dumps(config))
    done = typed("baseline", "add", "--model", model, "--suite", tiny_suite)
    assert done.code == 2
    assert "declares FP8" in done.line()


def test_the_same_run_of_another_version_is_said_to_differ_before_it_is_measured(
    measured: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    """The tiny suite with another number of items is another suite of the same name."""
    text = tiny_suite.read_text().replace("items: 60", "items: 61")
    (tmp_path / "tiny.yaml").write_text(text)
    done = typed(*add(tmp_path / "tiny.yaml"))
    assert done.code == 0, done.err
    assert "does not fit, it is measured anew: the suite was 'tiny " in done.err
    kept = {one.entry.num_items: one.key for one in baselines.kept_baselines()}
    assert set(kept) == {60, 61}
    baselines.remove_baseline(kept[61])
    assert only(measured)


def request(suite: Path, baseline: Path) -> Request:
    return Request(
        model="canary",
        qformat="nvfp4",
        suite=str(suite),
        engine="reference",
        baseline=str(baseline),
    )


def test_a_bundle_is_what_e2e_compares_with(
    measured: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    bundle = baselines.export_baseline(only(measured), tmp_path / "canary.baseline")
    job = preflight(request(tiny_suite, bundle))
    assert isinstance(job.baseline, baselines.ScoredArm)
    assert job.baseline.path == bundle
    assert job.recipe.baseline == str(bundle)


def test_the_folder_of_another_model_is_what_e2e_compares_with(
    tiny_suite: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(shipped.canary() / "model", tmp_path / "model"))
    job = preflight(request(tiny_suite, model))
    assert isinstance(job.baseline, Source)
    assert job.baseline.path == model


def test_a_stale_bundle_ends_e2e_before_it_starts(
    measured: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    bundle = baselines.export_baseline(only(measured), tmp_path / "canary.baseline")
    arguments = ("e2e", "--model", "canary", "--qformat", "nvfp4", "--baseline", bundle)
    suite = tmp_path / "shorter.yaml"
    suite.write_text(tiny_suite.read_text().replace("items: 60", "items: 50"))
    options = ("--suite", suite, "--run-dir", tmp_path / "run")
    done = typed(*arguments, *options, "--engine", "reference", "--json")
    assert done.code == 2
    assert json.loads(done.out)["reason_codes"] == ["stale-baseline"]
    assert "the suite" in done.line()
    assert not (tmp_path / "run").exists()


def test_a_run_against_a_bundle_needs_no_baseline_of_its_own(
    measured: Path, tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = baselines.export_baseline(only(measured), tmp_path / "canary.baseline")
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "elsewhere"))
    run_dir = tmp_path / "run"
    arguments = ("e2e", "--model", "canary", "--qformat", "nvfp4", "--calib-size", 32)
    options = ("--suite", tiny_suite, "--engine", "reference", "--run-dir", run_dir)
    done = typed(*arguments, *options, "--baseline", bundle, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["verdict"]["rerun_flip_rate"] is not None
    assert not (tmp_path / "elsewhere").exists()
    entry = baselines.read_entry(run_dir / "baseline")
    assert entry is not None
    assert entry.rerun is not None
    assert entry.rerun.share == 1.0
