"""The last hops on a real vLLM: a right one says what memory says, a wrong one is the loader."""

import os
from pathlib import Path

import pytest

from harness import drill, pipeline
from harness.artifacts import Localization, OriginStage
from harness.localizing import Machine, localize
from harness.preflight import preflight
from harness.recipe import Request
from harness.runs import run_job
from harness.serve.vllm import server
from harness.serve.vllm.arguments import PLUGIN
from tests.tiers import slow

FAULTY = Path(drill.__file__).with_name("in_vllm")


def made(qformat: str, into: Path) -> Path:
    request = Request(
        model="canary", qformat=qformat, calib_size=8, device="cpu", engine="reference"
    )
    job = preflight(request, into=into, scored=False)
    run_job(job, into=into, work=pipeline.make_checkpoint)
    return into


@pytest.fixture(scope="module")
@slow("reads texts with a real vLLM")
def of_a_right_one(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Localization:
    run = made("nvfp4", tmp_path_factory.mktemp("right") / "run")
    return localize(run, Machine(vllm=vllm_python))


def test_a_right_vllm_parts_nowhere(of_a_right_one: Localization) -> None:
    assert of_a_right_one.stage is None
    assert [hop.name for hop in of_a_right_one.hops if not hop.looked] == []


def test_what_rounding_may_do_is_measured(of_a_right_one: Localization) -> None:
    emulated = next(hop for hop in of_a_right_one.hops if hop.name == "emulated")
    assert emulated.difference is not None
    assert emulated.bound is not None
    assert 0 < emulated.difference < emulated.bound < 0.2


@pytest.fixture
@slow("reads texts with a real vLLM")
def of_a_wrong_one(
    vllm_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Localization:
    """One that computes all experts of a layer with the weight scale of the first."""
    run = made("fp8", tmp_path / "run")
    monkeypatch.setattr(server, "PLUGIN", f"{FAULTY}{os.pathsep}{PLUGIN}")
    return localize(run, Machine(vllm=vllm_python))


def test_a_vllm_with_other_scales_than_the_files_is_the_loader(
    of_a_wrong_one: Localization,
) -> None:
    assert of_a_wrong_one.stage is OriginStage.LOADER
    parted = next(hop for hop in of_a_wrong_one.hops if hop.parted)
    assert parted.name == "emulated"
