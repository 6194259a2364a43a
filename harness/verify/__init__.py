"""Check a checkpoint's files before an engine loads them."""

from harness.verify.ahead import ReadingAhead, reading_checkpoint
from harness.verify.incidents import CHECK_IDS
from harness.verify.templates import check_template, has_template
from harness.verify.verification import (
    BASELINE_CHECKS,
    CHECKS,
    ENGINE_CHECKS,
    SOURCE_CHECKS,
    refuse_errors,
    verify,
)

__all__ = [
    "BASELINE_CHECKS",
    "CHECKS",
    "CHECK_IDS",
    "ENGINE_CHECKS",
    "SOURCE_CHECKS",
    "ReadingAhead",
    "check_template",
    "has_template",
    "reading_checkpoint",
    "refuse_errors",
    "verify",
]
