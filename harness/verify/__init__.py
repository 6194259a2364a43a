"""Check a checkpoint's files before an engine loads them."""

from harness.verify.verification import CHECKS, refuse_errors, verify

__all__ = ["CHECKS", "refuse_errors", "verify"]
