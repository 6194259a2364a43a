"""Compare a few answers and readings of both arms before anything is scored."""

from harness.smoke.compare import compare, refuse_failed
from harness.smoke.ids import CHECK_IDS

__all__ = ["CHECK_IDS", "compare", "refuse_failed"]
