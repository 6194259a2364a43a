"""What a reviewed file of waivers means for one checkpoint on one day.

A waiver covers one failed check (of files, of a deployment or of the smoke run) of the checkpoint
that it names, until its day. Scores, intervals, and missing or failed results are judged as if
there were no waivers. So a waiver can turn a NO-GO for its check into GO WITH WAIVERS, and do
nothing else.
"""

import dataclasses
from collections.abc import Collection
from datetime import date
from typing import NamedTuple

from harness.artifacts import (
    GO_WITH_WAIVERS,
    Decision,
    Deployment,
    Severity,
    SmokeReport,
    Verdict,
    WaivedCheck,
    Waiver,
)
from harness.errors import ReasonCode

_GO = f"{Decision.GO}: "
_SHOWN = 12


class Overrides(NamedTuple):
    """All waivers that were given, and what they are held against."""

    waivers: tuple[Waiver, ...]
    checkpoint: str
    """Digest of all files of the checkpoint that is judged."""
    today: date
    """UTC."""

    @property
    def applying(self) -> tuple[Waiver, ...]:
        """Return the waivers of this checkpoint that hold today."""
        return tuple(
            waiver
            for waiver in self.waivers
            if waiver.checkpoint == self.checkpoint and waiver.expires >= self.today
        )

    @property
    def checks(self) -> frozenset[str]:
        """Return the ids of the checks that may fail."""
        return frozenset(waiver.check for waiver in self.applying)

    def used(self, failed: Collection[str]) -> tuple[Waiver, ...]:
        """Return the waivers that answer for one of the checks that failed."""
        return tuple(waiver for waiver in self.applying if waiver.check in failed)


def waive_findings(deployment: Deployment, waivers: tuple[Waiver, ...]) -> Deployment:
    """Return the deployment with its waived errors as what they now are: reported, not judged."""
    by_check = {waiver.check: waiver for waiver in waivers}
    findings = tuple(
        dataclasses.replace(
            finding,
            severity=Severity.WARNING,
            message=f"waived by {by_check[finding.id].approver}: {finding.message}",
        )
        if finding.id in by_check and finding.severity is Severity.ERROR
        else finding
        for finding in deployment.findings
    )
    return dataclasses.replace(deployment, findings=findings)


def waive_checks(smoke: SmokeReport | None, waivers: tuple[Waiver, ...]) -> SmokeReport | None:
    """Return the smoke report with its waived errors as what they now are: reported, not judged."""
    if smoke is None:
        return None
    waived = {waiver.check for waiver in waivers}
    checks = tuple(
        dataclasses.replace(check, severity=Severity.WARNING) if check.id in waived else check
        for check in smoke.checks
    )
    return dataclasses.replace(smoke, checks=checks)


def name_waivers(verdict: Verdict, waivers: tuple[Waiver, ...]) -> Verdict:
    """Return the verdict with the waivers that it rests on; a GO is named for what it is."""
    if not waivers:
        return verdict
    waived = tuple(
        WaivedCheck(check=w.check, reason=w.reason, approver=w.approver, expires=w.expires)
        for w in waivers
    )
    verdict = dataclasses.replace(verdict, waived=waived)
    if verdict.decision is not Decision.GO:
        return verdict
    names = ", ".join(f"{w.check} ({w.approver}, until {w.expires})" for w in waivers)
    evidence = verdict.summary.removeprefix(_GO)
    return dataclasses.replace(
        verdict,
        reason_codes=(ReasonCode.WAIVED, *verdict.reason_codes),
        summary=f"{GO_WITH_WAIVERS}: {names}; {evidence}",
    )


def explain_waivers(verdict: Verdict, overrides: Overrides, failed: Collection[str]) -> Verdict:
    """Return the verdict with what its failed checks and the given waivers have to do.

    Args:
        verdict: with the waivers that were used in it.
        overrides: all that were given.
        failed: ids of the checks that failed, waived or not.
    """
    used = {waiver.check for waiver in overrides.used(failed)}
    open_checks = tuple(check for check in dict.fromkeys(failed) if check not in used)
    notes = tuple(_note(waiver, overrides, used) for waiver in overrides.waivers)
    return dataclasses.replace(
        verdict,
        failed_checks=open_checks,
        checkpoint_digest=overrides.checkpoint,
        scope=(*verdict.scope, *notes),
    )


def _note(waiver: Waiver, overrides: Overrides, used: Collection[str]) -> str:
    head = f"waiver of {waiver.check} by {waiver.approver} until {waiver.expires}"
    if waiver.checkpoint != overrides.checkpoint:
        return (
            f"{head} does not apply: it is for checkpoint {waiver.checkpoint[:_SHOWN]}, "
            f"this is {overrides.checkpoint[:_SHOWN]}"
        )
    if waiver.expires < overrides.today:
        return f"{head} does not apply: it has expired"
    if waiver.check not in used:
        return f"{head} was not used: the check did not fail, or was not run"
    return f"{head}: {waiver.reason}"
