"""Before any weight is read: resolve everything, check everything, and say what it will cost."""

from harness.preflight.baseline_job import BaselineJob, preflight_baseline
from harness.preflight.deployments_job import (
    Deployed,
    DeploymentsJob,
    Servers,
    preflight_deployments,
)
from harness.preflight.devices import Gpus, assign_gpus, host_memory
from harness.preflight.engine import check_answerable, engine_for
from harness.preflight.gate_job import GateJob, preflight_gate
from harness.preflight.job import Job, check_suite, preflight
from harness.preflight.nel_tasks import check_has_address
from harness.preflight.summary import (
    DeploymentsPlanSummary,
    GatePlanSummary,
    PlanSummary,
    TaskPlan,
    summarize,
    summarize_deployments,
    summarize_gate,
)
from harness.preflight.together import Together, Way, candidate_bytes, plan_arms

__all__ = [
    "BaselineJob",
    "Deployed",
    "DeploymentsJob",
    "DeploymentsPlanSummary",
    "GateJob",
    "GatePlanSummary",
    "Gpus",
    "Job",
    "PlanSummary",
    "Servers",
    "TaskPlan",
    "Together",
    "Way",
    "assign_gpus",
    "candidate_bytes",
    "check_answerable",
    "check_has_address",
    "check_suite",
    "engine_for",
    "host_memory",
    "plan_arms",
    "preflight",
    "preflight_baseline",
    "preflight_deployments",
    "preflight_gate",
    "summarize",
    "summarize_deployments",
    "summarize_gate",
]
