"""The gate of two deployments that somebody else runs: prove, smoke, score, judge.

Nothing is served and no file is loaded here, so the run holds for what the two addresses answered.
Who runs them may exchange a model at any time. So what a stage made is used again only if the
address still says the same of itself and answers the proof's prompts to the last digit as it did;
an answer that differs by noise costs a stage and nothing else.
"""

import secrets
from pathlib import Path
from typing import NamedTuple

from harness import score
from harness.arms import DEPLOYMENT_FILE, BaselineWatch, asks_elsewhere
from harness.artifacts import (
    Endpoint,
    MadeFrom,
    Scorecard,
    SmokeReport,
    SmokeSet,
    Suite,
    Verdict,
    digest_of,
    save,
)
from harness.baselines import AGAIN, RERUN_SHARE, versions
from harness.errors import EvidenceError
from harness.evidence import folder_of, ingredients
from harness.judging import judge_deployments, waived_checks
from harness.models import digest_folder
from harness.pipeline import Looked, Origin, check_files, refuse_files
from harness.preflight import DeploymentsJob
from harness.rundir import RunDirectory
from harness.smoke import compare, refuse_failed
from harness.stages import BASELINE, BASELINE_FOLDER, CANDIDATE, JUDGE, SMOKE

PROVE = "prove"
"""What a run is at before its first stage."""


class _Arm(NamedTuple):
    """A deployment whose answers are proven to be of use."""

    endpoint: Endpoint
    identity: str
    """Digest of what it says of itself, and of its answers to the proof."""


def deployments_gate(job: DeploymentsJob, run: RunDirectory) -> Verdict:
    """May the candidate's deployment take the baseline's place?"""
    trial, suite = job.recipe, job.recipe.suite
    run.current = PROVE
    reads = bool(score.tasks_of_likelihoods(suite))
    candidate = _prove(job.candidate, reads=reads)
    baseline = _prove(job.baseline.endpoint, reads=reads)
    save(candidate.endpoint.deployment, run.path / DEPLOYMENT_FILE)
    waived: frozenset[str] = frozenset()
    if job.checkpoint is not None:
        folder = job.checkpoint.path
        if not trial.skip_verify:
            looked = Looked(folder, job.checkpoint.digest, Origin(None))
            integrity = check_files(trial, looked, run)
            refuse_files(integrity, None, waived_checks(trial, folder))
        waived = waived_checks(trial, folder)
    how = {"suite": suite.digest, "versions": digest_of(versions(suite))}
    theirs = {"baseline": baseline.identity, **how}
    ours = {"candidate": candidate.identity, **how}
    if suite.smoke is not None:
        report = _smoke(run, suite.smoke, candidate, baseline, {**theirs, **ours})
        refuse_failed(report, waived=waived)
    watch = None
    if trial.end_early:
        ours = {**ours, **theirs}
        run.stage(BASELINE, made_from=theirs, make=lambda: _measure(baseline, suite, run.path))
        watch = BaselineWatch(suite, [run.path / BASELINE_FOLDER])
    run.stage(CANDIDATE, made_from=ours, make=lambda: _score(candidate, suite, run.path, watch))
    run.stage(BASELINE, made_from=theirs, make=lambda: _measure(baseline, suite, run.path))
    _check_same_files(job, run)
    return run.stage(
        JUDGE,
        made_from=ingredients(run, trial),
        make=lambda: judge_deployments(trial, job.scheme, run),
    )


def _prove(endpoint: Endpoint, *, reads: bool) -> _Arm:
    shown = score.prove_endpoint(endpoint, reads=reads)
    # Where too little can be seen of a model to know it again, it is another each time.
    seen = shown.fingerprint or secrets.token_hex()
    return _Arm(
        endpoint, digest_of(endpoint.base_url, endpoint.protocol, endpoint.deployment, seen)
    )


def _smoke(
    run: RunDirectory, prompts: SmokeSet, candidate: _Arm, baseline: _Arm, asked: MadeFrom
) -> SmokeReport:
    """Compare a few answers of both."""

    def make() -> SmokeReport:
        theirs = score.probe(baseline.endpoint, prompts, arm="baseline")
        ours = score.probe(candidate.endpoint, prompts, arm="candidate")
        return compare(prompts, theirs, ours, numerics="deployed")

    return run.stage(SMOKE, made_from={**asked, "smoke set": prompts.digest}, make=make)


def _score(arm: _Arm, suite: Suite, into: Path, watch: BaselineWatch | None) -> Scorecard:
    elsewhere = asks_elsewhere(arm.endpoint, suite, arm="candidate")
    return score.score(
        arm.endpoint, suite, arm="candidate", into=into, watch=watch, elsewhere=elsewhere
    )


def _measure(arm: _Arm, suite: Suite, into: Path) -> Scorecard:
    """Score the baseline, and a share of its items once more (A/A)."""
    folder = into / BASELINE_FOLDER
    elsewhere = asks_elsewhere(arm.endpoint, suite, arm="baseline")
    card = score.score(arm.endpoint, suite, arm="baseline", into=folder, elsewhere=elsewhere)
    again = folder / AGAIN
    score.score_again(arm.endpoint, suite, into=again, share=RERUN_SHARE, elsewhere=elsewhere)
    return card


def _check_same_files(job: DeploymentsJob, run: RunDirectory) -> None:
    """Refuse to judge if the checkpoint is another than the one that was verified.

    Raises:
        EvidenceError: it is.
    """
    if job.checkpoint is None:
        return
    found = digest_folder(folder_of(run.path, job.recipe))
    if found != job.checkpoint.digest:
        message = (
            f"the checkpoint '{job.checkpoint.path}' was exchanged while the run was at work: its "
            f"digest was {job.checkpoint.digest:.12} and is {found:.12}. Let nobody write there, "
            "and type the command again."
        )
        raise EvidenceError(message)
