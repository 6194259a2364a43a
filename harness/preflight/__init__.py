"""Before any weight is read: resolve everything, check everything, and say what it will cost."""

from harness.preflight.baseline_job import BaselineJob, preflight_baseline
from harness.preflight.engine import choose_engine, resolve_device
from harness.preflight.gate_job import GateJob, preflight_gate
from harness.preflight.job import Job, preflight
from harness.preflight.summary import GatePlanSummary, PlanSummary, summarize, summarize_gate

__all__ = [
    "BaselineJob",
    "GateJob",
    "GatePlanSummary",
    "Job",
    "PlanSummary",
    "choose_engine",
    "preflight",
    "preflight_baseline",
    "preflight_gate",
    "resolve_device",
    "summarize",
    "summarize_gate",
]
