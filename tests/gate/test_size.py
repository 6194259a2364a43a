"""A format promises a size, and files keep it or not."""

import pytest

from harness.artifacts import DeclaredSize, StoredWeights
from harness.errors import ReasonCode, RejectedError
from harness.gate import SIZE_CHECK, compare_sizes, refuse_not_reduced

GB = 10**9
BASELINE = StoredWeights(num_bytes=2 * GB, bits_per_weight=16.0)
"""A thousand million weights in bfloat16."""


def declared(num_bytes: float, *, weights: float = 0.9, bits: float = 4.5) -> DeclaredSize:
    return DeclaredSize(
        num_bytes=int(num_bytes * GB), num_weights=int(weights * GB), promised_bits=bits
    )


def is_refused(size: DeclaredSize, baseline: StoredWeights = BASELINE) -> bool:
    try:
        refuse_not_reduced(compare_sizes(size, baseline), waived=frozenset())
    except RejectedError as error:
        return error.reason is ReasonCode.SIZE_NOT_REDUCED
    return False


def test_what_the_format_promises_follows_from_the_baselines_size() -> None:
    size = compare_sizes(declared(0.71), BASELINE)
    assert size is not None
    assert size.promised_bytes == pytest.approx(2 * GB - 0.9 * GB * 11.5 / 8)
    assert size.times_smaller == pytest.approx(2 / 0.71)
    assert size.reduced


def test_files_as_large_as_the_baselines_are_refused() -> None:
    assert is_refused(declared(2.0))
    assert is_refused(declared(2.6))
    assert not is_refused(declared(0.71))


def test_an_output_layer_that_is_stored_apart_is_no_reason() -> None:
    assert not is_refused(declared(0.71 + 0.3))


def test_few_quantized_weights_promise_little() -> None:
    assert not is_refused(declared(1.9, weights=0.07))
    assert is_refused(declared(2.0, weights=0.07))


def test_nothing_is_promised_where_the_baseline_has_as_few_bits() -> None:
    packed = StoredWeights(num_bytes=GB // 2, bits_per_weight=4.3)
    assert not is_refused(declared(0.53, weights=0.95), packed)


def test_a_size_that_nobody_knows_refuses_nothing() -> None:
    assert compare_sizes(None, BASELINE) is None
    assert compare_sizes(declared(2.0), None) is None
    refuse_not_reduced(None, waived=frozenset())


def test_a_waiver_of_the_check_lets_it_pass() -> None:
    size = compare_sizes(declared(2.0), BASELINE)
    refuse_not_reduced(size, waived=frozenset({SIZE_CHECK}))
