"""Run directories of nights: real scores and a real verdict, of a candidate that is made up."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import evidence
from harness.artifacts import Arm, Scorecard, TaskSpec, save, write_samples
from harness.baselines import AGAIN
from harness.gate import judge
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory
from harness.runs import run_job
from harness.stages import BASELINE, BASELINE_FOLDER, CANDIDATE, JUDGE
from tests.gate.arms import answers, make_arm
from tests.nouns import suite_of, task_spec

Values = Mapping[str, Sequence[float]]


def night_job(*tasks: TaskSpec) -> Job:
    """Return the job of a cell whose suite has these tasks."""
    job = preflight(Request(model="canary", qformat="nvfp4"), scored=False)
    suite = suite_of(*(tasks or (task_spec(margin=0.1),)))
    return replace(job, recipe=replace(job.recipe, suite=suite))


def judged_run(
    job: Job, into: Path, candidate: Values, *, baseline: Values, rerun: Values | None = None
) -> Path:
    """Write the run directory of one night.

    Args:
        job: of the cell.
        into: the run directory.
        candidate: each item's value, by task.
        baseline: the same of the baseline, and of its second run.
        rerun: see there.
    """

    def work(job: Job, run: RunDirectory) -> None:
        digest = job.recipe.suite.digest
        (run.path / "checkpoint").mkdir(exist_ok=True)
        (run.path / "checkpoint" / "config.json").write_text("{}")
        arms = {
            stage: _written(name, values, run.path / folder, digest)
            for stage, name, values, folder in (
                (CANDIDATE, "candidate", candidate, ""),
                (BASELINE, "baseline", baseline, BASELINE_FOLDER),
            )
        }
        if rerun is not None:
            again = run.path / BASELINE_FOLDER / AGAIN
            save(_written("baseline", rerun, again, digest).scorecard, again / CANDIDATE.file)
        run.stage(CANDIDATE, made_from={}, make=lambda: arms[CANDIDATE].scorecard)
        run.stage(BASELINE, made_from={}, make=lambda: arms[BASELINE].scorecard)
        run.stage(
            JUDGE,
            made_from=evidence.ingredients(run, job.recipe),
            make=lambda: judge(job.recipe.suite, arms[BASELINE], arms[CANDIDATE], verified=True),
        )

    run_job(job, into=into, work=work)
    return into


def _written(name: str, values: Values, folder: Path, suite_digest: str) -> Arm:
    samples = {task: answers(task, list(each)) for task, each in values.items()}
    arm = make_arm(name, samples, suite_digest=suite_digest)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    scores = []
    for score in arm.scorecard.tasks:
        write_samples(samples[score.task], folder / score.samples)
        digest = hashlib.sha256((folder / score.samples).read_bytes()).hexdigest()
        scores.append(replace(score, samples_sha256=digest))
    card: Scorecard = replace(arm.scorecard, tasks=tuple(scores))
    return Arm(scorecard=card, samples=samples)
