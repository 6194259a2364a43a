"""Scores that other tools recorded, read as arms, and ours written as theirs."""

from harness.foreign.arms import to_arm
from harness.foreign.pairing import (
    Pairing,
    is_recorded,
    pair_recorded,
    pair_with_own,
    read_recorded,
)
from harness.foreign.recorded import Recorded
from harness.foreign.suites import suite_of_recorded
from harness.foreign.writing import write_as

__all__ = [
    "Pairing",
    "Recorded",
    "is_recorded",
    "pair_recorded",
    "pair_with_own",
    "read_recorded",
    "suite_of_recorded",
    "to_arm",
    "write_as",
]
