"""What an engine will do with a checkpoint, before anything is calibrated."""

import pytest

from harness.artifacts import MIXED
from harness.engines import Demands, Fate
from harness.engines.algorithms import LOADED, MODELOPT
from harness.engines.foretold import (
    EXPERTS,
    EXPORTED,
    GENERATIONS,
    LINEAR,
    foretell,
    foretell_all,
    questions,
    recorded,
    recorded_versions,
)

HOPPER, BLACKWELL = "9.0", "10.0"


def told(algorithm: str, layers: str, *, gpu: str = HOPPER, mixed: bool = False):  # type: ignore[no-untyped-def]  # noqa: ANN201
    record = recorded(recorded_versions()[-1], gpu)
    assert record is not None
    return foretell(record.answers, algorithm, layers=layers, mixed=mixed)


@pytest.mark.parametrize("version", recorded_versions())
@pytest.mark.parametrize("gpu", GENERATIONS)
def test_every_release_answered_for_every_algorithm_that_it_is_known_to_load(
    version: str, gpu: str
) -> None:
    record = recorded(version, gpu)
    assert record is not None
    assert record.version == version
    for algorithm in LOADED[MODELOPT]:
        found = foretell(record.answers, algorithm, layers=LINEAR, mixed=False)
        assert found.fate is not Fate.UNKNOWN, (algorithm, found.why)


@pytest.mark.parametrize("algorithm", ["FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN"])
def test_experts_of_two_fp8_algorithms_are_read_as_another(algorithm: str) -> None:
    found = told(algorithm, EXPERTS)
    assert found.fate is Fate.MISREAD
    assert "room for 1 of the" in found.why
    assert told(algorithm, LINEAR).fate is Fate.LOADED


def test_block_fp8_experts_count_only_inside_mixed_precision() -> None:
    assert told("FP8_PB_WO", EXPERTS, mixed=True).fate is Fate.LOADED
    assert told("FP8_PER_CHANNEL_PER_TOKEN", EXPERTS, mixed=True).fate is not Fate.LOADED


@pytest.mark.parametrize("algorithm", ["NVFP4_AWQ", "NVFP4_SVD", "W4A8_NVFP4_FP8"])
def test_what_model_optimizer_exports_and_vllm_does_not_know_is_refused(algorithm: str) -> None:
    for layers in (LINEAR, EXPERTS):
        assert told(algorithm, layers).fate is Fate.REFUSED
        assert told(algorithm, layers, mixed=True).fate in {Fate.REFUSED, Fate.MISREAD}


@pytest.mark.parametrize("gpu", ["8.0", "8.9", HOPPER])
def test_nvfp4_experts_before_blackwell_are_marlins_and_hide_their_inputs(gpu: str) -> None:
    found = told("NVFP4", EXPERTS, gpu=gpu)
    assert "MARLIN" in found.kernel
    assert found.inputs == "hidden"
    assert told("NVFP4", EXPERTS, gpu=BLACKWELL).inputs == "computed"


def test_weights_alone_have_no_inputs_to_hide() -> None:
    assert told("W4A16_NVFP4", LINEAR).inputs == ""


def test_an_answer_that_was_not_given_is_no_refusal() -> None:
    for answers in ({}, {"NVFP4": {LINEAR: {"unknown": "TypeError: no such thing"}}}):
        assert foretell(answers, "NVFP4", layers=LINEAR, mixed=False).fate is Fate.UNKNOWN


def test_an_algorithm_whose_scales_harness_does_not_know_is_no_refusal() -> None:
    answers = {"NEW_8": {LINEAR: {"kernel": "NewKernel", "method": "NewMethod", "scales": 7}}}
    assert foretell(answers, "NEW_8", layers=LINEAR, mixed=False).fate is Fate.UNKNOWN


def test_a_layer_that_is_left_unquantized_is_misread() -> None:
    answers = {"FP8": {LINEAR: {"kernel": "Unquantized", "method": "Unquantized", "scales": 0}}}
    found = foretell(answers, "FP8", layers=LINEAR, mixed=False)
    assert (found.fate, found.why) == (Fate.MISREAD, "Unquantized leaves it unquantized")


def test_a_checkpoint_is_foretold_by_what_it_demands() -> None:
    record = recorded(recorded_versions()[-1], HOPPER)
    assert record is not None
    plain = Demands(linears=frozenset({"FP8"}), experts=frozenset({"FP8_PB_WO"}))
    assert plain.scheme == MIXED
    fates = {one.layers: one.fate for one in foretell_all(record.answers, plain)}
    assert fates == {LINEAR: Fate.LOADED, EXPERTS: Fate.LOADED}
    assert foretell_all(record.answers, Demands(layout="compressed-tensors")) == ()


@pytest.mark.parametrize("version", ["0.33.1.dev12+gabcdef.cu130", "0.34.0", "1.0"])
def test_a_version_after_all_that_were_asked_is_answered_by_the_newest(version: str) -> None:
    record = recorded(version, HOPPER)
    assert record is not None
    assert record.version == recorded_versions()[-1]


def test_nothing_is_on_record_for_what_was_before_or_for_another_gpu() -> None:
    assert recorded("0.24.0", HOPPER) is None
    assert recorded("0.33.0", "6.1") is None


def test_each_declaration_is_asked_about_alone_and_inside_mixed_precision() -> None:
    asked = questions()
    assert len(asked) == 2 * len(EXPORTED)
    assert (
        asked["NVFP4"]["group_size"]
        == asked[f"{MIXED}/NVFP4"]["quantized_layers"][  # type: ignore[index]
            "model.layers.0.mlp.experts"
        ]["group_size"]
    )
