"""Before any weight is read: resolve everything, check everything, and say what it will cost."""

from harness.preflight.baseline_job import BaselineJob, preflight_baseline
from harness.preflight.engine import engine_for
from harness.preflight.gate_job import GateJob, preflight_gate
from harness.preflight.job import Job, preflight
from harness.preflight.summary import GatePlanSummary, PlanSummary, summarize, summarize_gate

__all__ = [
    "BaselineJob",
    "GateJob",
    "GatePlanSummary",
    "Job",
    "PlanSummary",
    "engine_for",
    "preflight",
    "preflight_baseline",
    "preflight_gate",
    "summarize",
    "summarize_gate",
]
