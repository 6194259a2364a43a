"""Before any weight is read: resolve everything, check everything, and say what it will cost."""

from harness.preflight.job import Job, preflight, resolve_device
from harness.preflight.summary import PlanSummary, summarize

__all__ = ["Job", "PlanSummary", "preflight", "resolve_device", "summarize"]
