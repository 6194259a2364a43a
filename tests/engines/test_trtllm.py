"""What TensorRT-LLM is known to make of a checkpoint, by what its version and documentation say."""

import pytest

from harness.engines import Demands, doubts_of_trtllm, refuse_unread_by_trtllm
from harness.errors import PrerequisiteError, ReasonCode

KNOWN = frozenset({"FP8", "NVFP4", "FP8_BLOCK_SCALES", "W4A16_MXFP4", "MIXED_PRECISION"})


def of(*algorithms: str, **more: object) -> Demands:
    return Demands(linears=frozenset(algorithms), **more)  # type: ignore[arg-type]  # varies by test


@pytest.mark.parametrize(
    "demands",
    [
        Demands(),
        of("NVFP4"),
        of("FP8", kv_fp8=True),
        of("FP8_PB_WO"),
        of("NVFP4", "FP8", names_layers=True),
        of("FP8_PER_BLOCK", layout="fp8"),
        of("MXFP4", layout="mxfp4"),
    ],
)
def test_what_the_version_has_a_name_for_is_served(demands: Demands) -> None:
    refuse_unread_by_trtllm(demands, KNOWN)


@pytest.mark.parametrize(
    ("demands", "words"),
    [
        (of("MXFP8"), "this version knows no MXFP8"),
        (of("W4A16_NVFP4"), "this version knows no W4A16_NVFP4"),
        (of("NVFP4", layout="compressed-tensors"), "nothing is known of its reading NVFP4"),
        (of("FP8_PER_TENSOR_DYNAMIC", layout="fp8"), "nothing is known of its reading"),
    ],
)
def test_what_it_has_no_name_for_is_refused_before_anything_is_calibrated(
    demands: Demands, words: str
) -> None:
    with pytest.raises(PrerequisiteError, match=words) as caught:
        refuse_unread_by_trtllm(demands, KNOWN)
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_nothing_is_refused_of_which_the_version_says_nothing() -> None:
    refuse_unread_by_trtllm(of("MXFP8"), frozenset())


def test_a_gpu_that_its_documentation_does_not_list_is_a_doubt() -> None:
    (doubt,) = doubts_of_trtllm(of("NVFP4"), 90)
    assert doubt == "its documentation lists NVFP4 from sm_100 on, and this is sm_90"
    assert doubts_of_trtllm(of("NVFP4"), 100) == ()
    assert doubts_of_trtllm(of("FP8"), 90) == ()
    assert doubts_of_trtllm(of("NVFP4"), None) == ()
