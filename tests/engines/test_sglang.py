"""What SGLang is foretold to do with a checkpoint, by version and GPU."""

import dataclasses

import pytest

from harness.engines import Demands, Foretold, Place, foretell_sglang, refuse_unserved, sglang_flag
from harness.engines.foretold import Fate
from harness.errors import PrerequisiteError, ReasonCode

HOPPER, BLACKWELL, TURING = (9, 0), (10, 0), (7, 5)
QWEN = ("Qwen3_5MoeForConditionalGeneration",)


def all_of(algorithm: str) -> Demands:
    one = frozenset({algorithm})
    return Demands(linears=one, experts=one, attention=one)


def experts_of(*algorithms: str) -> Demands:
    return Demands(experts=frozenset(algorithms), names_layers=len(algorithms) > 1)


def fates(demands: Demands, place: Place) -> set[Fate]:
    return {one.fate for one in foretell_sglang(demands, place)}


@pytest.mark.parametrize(
    ("demands", "flag"),
    [
        (Demands(), None),
        (experts_of("NVFP4"), "modelopt_fp4"),
        (all_of("FP8"), "modelopt_fp8"),
        (experts_of("NVFP4", "FP8"), "modelopt_mixed"),
    ],
)
def test_a_checkpoint_has_its_method(demands: Demands, flag: str | None) -> None:
    assert sglang_flag(demands) == flag


def test_nvfp4_hides_inputs_before_blackwell_and_computes_them_there() -> None:
    def inputs(capability: tuple[int, int]) -> tuple[str, str]:
        (one,) = foretell_sglang(experts_of("NVFP4"), Place("0.5.15", capability))
        return one.kernel, one.inputs

    assert inputs(HOPPER) == ("marlin", "hidden")
    assert inputs(BLACKWELL) == ("cutlass or flashinfer", "computed")


@pytest.mark.parametrize(
    ("version", "capability", "fate"),
    [
        ("0.5.12", HOPPER, Fate.REFUSED),
        ("0.5.12", BLACKWELL, Fate.LOADED),
        ("0.5.13", HOPPER, Fate.LOADED),
        ("0.5.23", TURING, Fate.REFUSED),
        ("0.5.8", BLACKWELL, Fate.REFUSED),
    ],
)
def test_nvfp4_needs_a_gpu_and_a_version(
    version: str, capability: tuple[int, int], fate: Fate
) -> None:
    assert fates(experts_of("NVFP4"), Place(version, capability)) == {fate}


@pytest.mark.parametrize("algorithm", ["FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN"])
def test_another_fp8_is_misread_as_one_scale_a_tensor_until_it_is_refused(algorithm: str) -> None:
    assert fates(all_of(algorithm), Place("0.5.17", HOPPER)) == {Fate.MISREAD}
    assert fates(all_of(algorithm), Place("0.5.18", HOPPER)) == {Fate.REFUSED}


def test_a_layer_of_an_unknown_algorithm_in_a_mixed_checkpoint_is_misread() -> None:
    found = foretell_sglang(experts_of("NVFP4", "FP8_PB_WO"), Place("0.5.15", HOPPER))
    assert {one.algorithm: one.fate for one in found} == {
        "NVFP4": Fate.LOADED,
        "FP8_PB_WO": Fate.MISREAD,
    }
    assert fates(experts_of("NVFP4", "FP8_PB_WO"), Place("0.5.20", HOPPER)) == {Fate.LOADED}


@pytest.mark.parametrize(("version", "fits"), [("0.5.10.post1", False), ("0.5.11", True)])
def test_one_scale_for_the_shards_of_a_fused_layer_fails_before_it_was_mended(
    version: str,
    fits: bool,  # noqa: FBT001 -- a table
) -> None:
    demands = dataclasses.replace(all_of("FP8"), architectures=QWEN)
    assert fates(demands, Place(version, HOPPER)) == (
        {Fate.LOADED} if fits else {Fate.LOADED, Fate.REFUSED}
    )
    assert fates(all_of("FP8"), Place(version, HOPPER)) == {Fate.LOADED}  # not this loader


@pytest.mark.parametrize(("version", "fits"), [("0.5.16", False), ("0.5.17", True)])
def test_quantized_attention_of_qwen3_5_does_not_fit_before_it_was_built_so(
    version: str,
    fits: bool,  # noqa: FBT001 -- a table
) -> None:
    whole = dataclasses.replace(all_of("NVFP4"), architectures=QWEN)
    outside = dataclasses.replace(whole, attention=frozenset())
    found = {one.layers: one.fate for one in foretell_sglang(whole, Place(version, HOPPER))}
    assert found == {"linear": Fate.LOADED if fits else Fate.REFUSED, "experts": Fate.LOADED}
    assert fates(outside, Place(version, HOPPER)) == {Fate.LOADED}


@pytest.mark.parametrize("version", ["0.9.0", "1.0", "0.5.24.dev3+gabcdef0", "main"])
def test_a_version_that_nobody_has_read_is_taken_for_the_newest(version: str) -> None:
    assert fates(all_of("W4A16_NVFP4"), Place(version, HOPPER)) == {Fate.LOADED}


@pytest.mark.parametrize(
    ("demands", "place", "words"),
    [
        (all_of("MXFP8"), Place("0.5.15", HOPPER), "do not know it"),
        (all_of("FP8_PB_WO"), Place("0.5.15", HOPPER), "one scale a tensor"),
        (Demands(experts=frozenset({"NVFP4"}), layout="fp8"), Place("0.5.15"), "layout only"),
        (
            Demands(experts=frozenset({"NVFP4"}), kv_nvfp4=True),
            Place("0.5.15", HOPPER),
            "keys and values in NVFP4",
        ),
        (
            dataclasses.replace(all_of("FP8"), kv_fp8=True, kv_calibrated=True, architectures=QWEN),
            Place("0.5.15", HOPPER),
            "drops this model's scales of keys and values",
        ),
        (all_of("FP8"), Place("0.5.15", HOPPER, frozenset({"fp8"})), "no method 'modelopt_fp8'"),
    ],
)
def test_what_is_not_computed_as_declared_is_refused(
    demands: Demands, place: Place, words: str
) -> None:
    with pytest.raises(PrerequisiteError, match=words) as caught:
        refuse_unserved(demands, place)
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_an_unquantized_model_and_what_is_computed_are_not_refused() -> None:
    refuse_unserved(Demands(), Place("0.5.9"))
    refuse_unserved(all_of("FP8"), Place("0.5.15", HOPPER, frozenset({"modelopt_fp8"})))
    assert foretell_sglang(Demands(), Place("0.5.15")) == ()
    assert isinstance(foretell_sglang(all_of("FP8"), Place("0.5.15"))[0], Foretold)
