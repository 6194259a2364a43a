"""Ask a served model: a few prompts first, then a suite, through lm-eval, one record an item."""

from harness.score.again import score_again
from harness.score.arm import read_arm
from harness.score.catalog import answer_budgets, check_suite
from harness.score.endpoint import endpoint_of
from harness.score.probing import probe
from harness.score.run import score

__all__ = [
    "answer_budgets",
    "check_suite",
    "endpoint_of",
    "probe",
    "read_arm",
    "score",
    "score_again",
]
