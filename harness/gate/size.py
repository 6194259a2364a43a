"""Whether a checkpoint is as much smaller as its format promises.

A format says how many bits it takes for a weight, so the size of the whole checkpoint is known from
the baseline's. Where less than half of that is saved, nothing was bought: weights were left as they
were behind a declaration, or lie there a second time. Half, and not all, because an output layer
that is stored apart from its embedding, or a draft head, may cost a part of it rightly.

Files are no sample: no further evidence would change what they are, so this is NO-GO and comes
before anything is served.
"""

from harness.artifacts import DeclaredSize, SizeVerdict, StoredWeights
from harness.errors import ReasonCode, RejectedError

SIZE_CHECK = "size-reduced"
"""Its id, as a waiver names it."""
_LEAST_SAVED = 0.5
_NOTHING = 0.01
"""Share of the baseline's files; a promise of less is lost among their headers."""
_MIB = 1 << 20


def compare_sizes(
    declared: DeclaredSize | None, baseline: StoredWeights | None
) -> SizeVerdict | None:
    """Hold a checkpoint's size against what its formats promise; None where a size is not known."""
    if declared is None or baseline is None or not baseline.num_bytes:
        return None
    bits, count = declared.promised_bits, declared.num_weights
    saved_bits = max(baseline.bits_per_weight - bits, 0.0)
    promised = round(count * saved_bits / 8)
    saved = baseline.num_bytes - declared.num_bytes
    return SizeVerdict(
        baseline_bytes=baseline.num_bytes,
        candidate_bytes=declared.num_bytes,
        promised_bytes=baseline.num_bytes - promised,
        reduced=promised < _NOTHING * baseline.num_bytes or saved >= _LEAST_SAVED * promised,
        message=(
            f"the weight files take {declared.num_bytes / _MIB:.1f} MiB and the baseline's "
            f"{baseline.num_bytes / _MIB:.1f} MiB, where the declared formats promise "
            f"{(baseline.num_bytes - promised) / _MIB:.1f} MiB ({bits:g} bits for each of "
            f"{count:,} weights)"
        ),
    )


def refuse_not_reduced(size: SizeVerdict | None, *, waived: frozenset[str]) -> None:
    """Refuse a checkpoint that is not smaller though its format promises it.

    Raises:
        RejectedError: it is not, and that is not waived.
    """
    if size is None or size.reduced or SIZE_CHECK in waived:
        return
    message = (
        f"{SIZE_CHECK}: {size.message}. Export the checkpoint again, without what is left over."
    )
    raise RejectedError(message, reason=ReasonCode.SIZE_NOT_REDUCED, checks=(SIZE_CHECK,))
