"""Score a served model: lm-eval through one door, one record an item."""

from harness.score.arm import read_arm
from harness.score.catalog import check_suite
from harness.score.endpoint import endpoint_of
from harness.score.run import score

__all__ = ["check_suite", "endpoint_of", "read_arm", "score"]
