"""Findings of a deployment that refuse the candidate."""

from harness.artifacts import Deployment, Finding, Severity
from harness.errors import RejectedError

DEPLOYMENT_FILE = "deployment.json"


def refuse_findings(deployment: Deployment, waived: frozenset[str]) -> None:
    """Refuse a candidate whose deployment shows a fault.

    Raises:
        RejectedError: it does, and the fault is not waived.
    """
    for finding in errors_of(deployment):
        if finding.id not in waived:
            message = f"{finding.id}: {finding.message}"
            checks = failed_findings(deployment)
            raise RejectedError(message, reason=finding.reason, checks=checks)


def failed_findings(deployment: Deployment) -> tuple[str, ...]:
    """Return the ids of what the deployment shows and must not."""
    return tuple(finding.id for finding in errors_of(deployment))


def errors_of(deployment: Deployment) -> list[Finding]:
    """Return what ends a run."""
    return [f for f in deployment.findings if f.severity is Severity.ERROR]
