"""A vLLM says what it would do with a checkpoint, before anything is calibrated."""

import json

import pytest

from harness.artifacts import EngineSpec
from harness.engines import Demands
from harness.engines.foretold import recorded
from harness.errors import PrerequisiteError, ReasonCode
from harness.serve import check_served, foretell_served, resolve_engine
from tests.serve.stand_in import How

BLOCK = Demands(linears=frozenset({"FP8_PB_WO"}), experts=frozenset({"FP8_PB_WO"}))
NVFP4 = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}))
GPU = "NVIDIA H200 (sm_90)"


@pytest.fixture
def on_hopper(engine: EngineSpec, how: How) -> EngineSpec:
    record = recorded("0.33.0", "9.0")
    assert record is not None
    how(FAKE_VERSION="0.40.0", FAKE_PLATFORM="cuda", FAKE_GPUS=json.dumps([GPU]))
    how(FAKE_ANSWERS=json.dumps({"foretold": record.answers, "linear_kernels": None}))
    return resolve_engine(engine)


def test_kernels_that_hide_inputs_are_foretold(on_hopper: EngineSpec) -> None:
    found = foretell_served(on_hopper, NVFP4)
    assert [(one.layers, one.inputs) for one in found] == [
        ("linear", "hidden"),
        ("experts", "hidden"),
    ]
    check_served(on_hopper, NVFP4)


def test_experts_that_would_be_misread_are_refused_before_calibration(
    on_hopper: EngineSpec,
) -> None:
    with pytest.raises(PrerequisiteError, match="routed experts of FP8_PB_WO") as caught:
        check_served(on_hopper, BLOCK)
    assert caught.value.reason == ReasonCode.UNSUPPORTED_FORMAT


def test_what_was_not_said_refuses_nothing(engine: EngineSpec, how: How) -> None:
    how(FAKE_VERSION="0.40.0", FAKE_PLATFORM="cuda", FAKE_GPUS=json.dumps([GPU]))
    how(FAKE_ANSWERS=json.dumps({"foretold": None, "linear_kernels": None}))
    found = resolve_engine(engine)
    assert {str(one.fate) for one in foretell_served(found, BLOCK)} == {"unknown"}
    check_served(found, BLOCK)
