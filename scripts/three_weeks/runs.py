"""Run directories of simulated answers, written, judged and read by harness itself."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from harness import evidence
from harness.artifacts import Arm, Deployment, Sample, TaskSpec, save, write_samples
from harness.baselines import AGAIN
from harness.errors import EngineError, ExitCode
from harness.gate import exit_code_of, judge
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory, open_run
from harness.runs import FAILURE_FILE, run_job
from harness.stages import BASELINE, BASELINE_FOLDER, CANDIDATE, JUDGE
from scripts.three_weeks.planted import MEMORY, TASKS, Answers, DrawnCell
from tests.gate.arms import quantized
from tests.nouns import deployment, sample, scorecard, suite_of, task_score, task_spec

MARGIN = 0.08
"""What each night may lose beside the baseline: wider than what is planted, so that nights end GO
whose loss only the anchor shows."""


def job_of() -> Job:
    """Return what every cell runs; what makes cells differ is their answers."""
    job = preflight(Request(model="canary", qformat="nvfp4"), scored=False)
    suite = suite_of(*(_spec(task, items) for task, items in TASKS.items()))
    return replace(job, recipe=replace(job.recipe, suite=suite))


def ran(job: Job, into: Path, cell: DrawnCell, night: int, *, is_regular: bool = True) -> ExitCode:
    """Write the run of one night; of night 0 with the A/A of its baseline."""
    with open_run(into, job.recipe) as run:
        (into / FAILURE_FILE).unlink(missing_ok=True)  # of the attempt before
        (into / "checkpoint").mkdir(exist_ok=True)
        (into / "checkpoint" / "config.json").write_text("{}")
        served = quantized(load_s=cell.load_s(), weights_memory_bytes=MEMORY)
        answers = cell.night(night, is_regular=is_regular)
        candidate = _written("candidate", served, answers, into)
        baseline = _baseline(cell, into / BASELINE_FOLDER, with_rerun=night == 0)
        run.stage(CANDIDATE, made_from={}, make=lambda: candidate.scorecard)
        run.stage(BASELINE, made_from={}, make=lambda: baseline.scorecard)
        verdict = run.stage(
            JUDGE,
            made_from=evidence.ingredients(run, job.recipe),
            make=lambda: judge(job.recipe.suite, baseline, candidate, verified=True),
        )
    return exit_code_of(verdict.decision)


def failed(job: Job, into: Path) -> ExitCode:
    """Write the run of a night in which the server died."""

    def work(job: Job, run: RunDirectory) -> None:
        del job, run
        message = "the server died (exit code -9). Look at the log of the server."
        raise EngineError(message)

    run_job(job, into=into, work=work)
    return ExitCode.STAGE_FAILED


def _baseline(cell: DrawnCell, folder: Path, *, with_rerun: bool) -> Arm:
    served = deployment(checkpoint_digest="b" * 64)
    if with_rerun:
        again = _written("baseline", served, cell.rerun(), folder / AGAIN)
        save(again.scorecard, folder / AGAIN / CANDIDATE.file)
    return _written("baseline", served, cell.baseline, folder)


def _spec(task: str, items: int) -> TaskSpec:
    return task_spec(task, items=items, margin=MARGIN)


def _written(name: str, served: Deployment, answers: Answers, folder: Path) -> Arm:
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    samples = {
        task: tuple(_sample(task, number, bool(is_right)) for number, is_right in enumerate(values))
        for task, values in answers.items()
    }
    scores = []
    for task, found in samples.items():
        score = task_score(task, found)
        write_samples(found, folder / score.samples)
        digest = hashlib.sha256((folder / score.samples).read_bytes()).hexdigest()
        scores.append(replace(score, samples_sha256=digest))
    return Arm(scorecard=scorecard(name, served, *scores), samples=samples)


@cache
def _sample(task: str, number: int, is_right: bool) -> Sample:  # noqa: FBT001 - a key of the cache
    return sample(task, number, float(is_right))
