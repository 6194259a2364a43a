"""Put before the judge what a run has found, and apply the waivers that were given."""

import dataclasses
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from harness.arms import DECLARED, DEPLOYMENT_FILE, failed_findings, refuse_findings
from harness.artifacts import (
    Arm,
    CalibrationStats,
    Deployment,
    DeploymentsTrial,
    IntegrityReport,
    Recipe,
    Scorecard,
    SmokeReport,
    ThinExperts,
    Trial,
    Verdict,
    load,
    thin_experts,
)
from harness.baselines import check_entry, read_rerun
from harness.errors import EvidenceError, HarnessError
from harness.evidence import folder_of
from harness.gate import (
    SIZE_CHECK,
    Overrides,
    Subject,
    compare_sizes,
    deployments_scope,
    explain_waivers,
    judge,
    not_compared,
)
from harness.models import digest_folder
from harness.reading import read_json_object
from harness.rundir import RunDirectory, Stage
from harness.score import read_arm
from harness.stages import (
    BASELINE,
    BASELINE_FOLDER,
    CALIBRATE,
    CANDIDATE,
    SMOKE,
    SMOKE_DECLARED,
    VERIFY,
)


def judge_run(trial: Trial, checkpoint: Path, subject: Subject, run: RunDirectory) -> Verdict:
    """Judge the scores in a run directory, with what its stages found before them.

    Raises:
        RejectedError: the emulation of the declared numerics shows a fault that is not waived.
        EvidenceError: scores in the directory are not those that the run's stages gave.
        BaselineError: the baseline's records contradict each other.
    """
    candidate, baseline = _arm_of(run, CANDIDATE), _arm_of(run, BASELINE)
    check_entry(run.path / BASELINE_FOLDER, named=str(run.path / BASELINE_FOLDER))
    overrides = overrides_of(trial, checkpoint)
    integrity: IntegrityReport | None = run.nouns.get(VERIFY.name)
    smoke: SmokeReport | None = run.nouns.get(SMOKE_DECLARED.name) or run.nouns.get(SMOKE.name)
    failed = tuple(check.id for check in integrity.errors) if integrity else ()
    failed += failed_findings(candidate.scorecard.deployment)
    failed += _refuse_emulated(trial, checkpoint, run)
    failed += tuple(check.id for check in smoke.errors) if smoke else ()
    size = compare_sizes(
        integrity.size if integrity else None, baseline.scorecard.deployment.stored
    )
    failed += (SIZE_CHECK,) if size and not size.reduced else ()
    verdict = judge(
        trial.suite,
        baseline,
        candidate,
        verified=not trial.skip_verify,
        subject=subject._replace(also=configured_names(baseline.scorecard.deployment)),
        rerun=read_rerun(run.path / BASELINE_FOLDER),
        smoke=smoke,
        coverage=_coverage(trial, run),
        waivers=overrides.used(failed),
        missing_evidence=trial.missing_evidence,
        size=size,
    )
    if trial.checkpoint is not None:
        scope = (*verdict.scope, not_compared(trial.checkpoint))
        verdict = dataclasses.replace(verdict, scope=scope)
    return explain_waivers(verdict, overrides, failed)


def judge_deployments(trial: DeploymentsTrial, scheme: str, run: RunDirectory) -> Verdict:
    """Judge the scores of two deployments that somebody else runs, for what their answers show.

    Raises:
        EvidenceError: scores in the directory are not those that the run's stages gave.
    """
    candidate, baseline = _arm_of(run, CANDIDATE), _arm_of(run, BASELINE)
    overrides = overrides_of(trial, folder_of(run.path, trial))
    integrity: IntegrityReport | None = run.nouns.get(VERIFY.name)
    smoke: SmokeReport | None = run.nouns.get(SMOKE.name)
    failed = tuple(check.id for check in integrity.errors) if integrity else ()
    failed += tuple(check.id for check in smoke.errors) if smoke else ()
    verdict = judge(
        trial.suite,
        baseline,
        candidate,
        verified=not trial.skip_verify,
        subject=Subject(trial.model, scheme or "unknown", str(trial.baseline)),
        rerun=read_rerun(run.path / BASELINE_FOLDER),
        smoke=smoke,
        waivers=overrides.used(failed),
        missing_evidence=trial.missing_evidence,
    )
    verdict = explain_waivers(verdict, overrides, failed)
    return dataclasses.replace(
        verdict,
        scope=(*verdict.scope, *deployments_scope(trial)),
        checkpoint_digest=overrides.checkpoint or None,
        baseline_digest=None,
    )


def configured_names(served: Deployment) -> tuple[str, ...]:
    """Return what a model's own configuration calls it, where its folder is still there.

    It shows what the model was made from, and is no proof of what it is.
    """
    file = Path(served.model) / "config.json"
    with suppress(HarnessError, OSError):
        if file.is_file():
            name = read_json_object(file).get("_name_or_path")
            return (name,) if isinstance(name, str) and name else ()
    return ()


def _arm_of(run: RunDirectory, stage: Stage[Scorecard]) -> Arm:
    """Read the samples behind a stage's scores.

    Raises:
        EvidenceError: the scores that lie there are others than the stage gave.
    """
    file = run.path / stage.file
    arm = read_arm(file.parent)
    if arm.scorecard != run.nouns[stage.name]:
        message = (
            f"'{file}' was exchanged between {stage.name} and the judge. Let nobody write there, "
            "and type the command again."
        )
        raise EvidenceError(message)
    return arm


def _refuse_emulated(trial: Trial, checkpoint: Path, run: RunDirectory) -> tuple[str, ...]:
    """Refuse what only the emulation of the declared numerics showed; return what was waived.

    Its stage may have been finished under a waiver that is not given any more.

    Raises:
        RejectedError: a finding is not waived.
    """
    if run.nouns.get(SMOKE_DECLARED.name) is None:
        return ()
    deployment = load(Deployment, run.path / DECLARED / DEPLOYMENT_FILE)
    refuse_findings(deployment, waived_checks(trial, checkpoint))
    return failed_findings(deployment)


def overrides_of(trial: Trial, checkpoint: Path) -> Overrides:
    """Return what the waivers that were given mean for a checkpoint's folder, today.

    Of deployments that somebody else runs there may be none.
    """
    digest = digest_folder(checkpoint) if checkpoint.is_dir() else ""
    return Overrides(trial.waivers, digest, datetime.now(UTC).date())


def waived_checks(trial: Trial, checkpoint: Path) -> frozenset[str]:
    """Return the ids of the checks that a waiver covers today."""
    return overrides_of(trial, checkpoint).checks if trial.waivers else frozenset()


def _coverage(trial: Trial, run: RunDirectory) -> ThinExperts | None:
    """Return which experts calibration showed too little, where this run calibrated."""
    stats: CalibrationStats | None = run.nouns.get(CALIBRATE.name)
    if stats is None or not isinstance(trial, Recipe):
        return None
    return thin_experts(stats.coverage, trial.calibration.coverage)
