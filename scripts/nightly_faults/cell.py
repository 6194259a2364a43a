"""A cell of seconds: harness's own run, server, keepers and judge, and answers without a model.

python -m scripts.nightly_faults.cell e2e ... --run-dir=DIR is typed by a nightly in the place of
harness, and ends as that does.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import typer

from harness import evidence
from harness.artifacts import Arm, Deployment, Recipe, Scorecard, write_samples
from harness.cli.console import concluding
from harness.errors import EngineError, ScoringError
from harness.gate import judge
from harness.kept import run_kept
from harness.preflight import GateJob
from harness.recipe import Request, load_recipe
from harness.rundir import RunDirectory
from harness.runs import exit_code, run_job
from harness.serve.process import KeptProcess, reserved_port, started
from harness.stages import BASELINE, BASELINE_FOLDER, CANDIDATE, JUDGE
from scripts.nightly_faults import served
from tests.gate.arms import answers, quantized
from tests.nouns import deployment, scorecard, suite_of, task_score, task_spec

ITEMS, LOST, TASK, MARGIN = 150, 1, "add", 0.1
_LOOK_S = 0.02
_PROGRAM = (sys.executable, "-I", "-S", str(Path(served.__file__)))


class _Job(NamedTuple):
    """What a run asks of its job, were it not refused anything: a real one reads a model first."""

    recipe: Recipe


def main(run_dir: Path) -> int:
    """Run it, or go on with what an earlier process did; return its exit code."""
    try:
        with concluding(as_json=False):
            recipe = load_recipe(Request(model="canary", qformat="nvfp4"))
            suite = suite_of(task_spec(TASK, items=ITEMS, margin=MARGIN))
            job = cast(GateJob, _Job(replace(recipe, suite=suite)))
            _, record = run_job(job, into=run_dir, work=_work)
            return int(exit_code(record))
    except typer.Exit as end:
        return int(end.exit_code)


def _work(job: GateJob, run: RunDirectory) -> None:
    (run.path / "checkpoint").mkdir(exist_ok=True)
    (run.path / "checkpoint" / "config.json").write_text("{}")
    arms: dict[str, Arm] = {}
    for stage, deployed, lost in (
        (CANDIDATE, quantized(), LOST),
        (BASELINE, deployment(checkpoint_digest="b" * 64), 0),
    ):
        into = run.path if stage is CANDIDATE else run.path / BASELINE_FOLDER
        name = "candidate" if stage is CANDIDATE else "baseline"
        arms[name] = _arm(name, deployed, lost)
        run.stage(stage, made_from={}, make=partial(_scored, arms[name], into, lost))
    run.stage(
        JUDGE,
        made_from=evidence.ingredients(run, job.recipe),
        make=lambda: judge(job.recipe.suite, arms["baseline"], arms["candidate"], verified=True),
    )


def _arm(name: str, deployed: Deployment, lost: int) -> Arm:
    """Return what an arm has to come to."""
    samples = {TASK: answers(TASK, [0.0] * lost + [1.0] * (ITEMS - lost))}
    return Arm(
        scorecard=scorecard(name, deployed, task_score(TASK, samples[TASK])), samples=samples
    )


def _scored(arm: Arm, into: Path, lost: int) -> Scorecard:
    """Serve an arm, ask it every item, and keep what was answered.

    Raises:
        EngineError: the server died, or somebody else has its port.
        ScoringError: the evaluator died, or was answered something else.
    """
    (into / "samples").mkdir(parents=True, exist_ok=True)
    file = into / "answers"
    with _server("0" * lost + "1" * (ITEMS - lost), into) as (server, port):
        command = (*_PROGRAM, "ask", str(port), str(ITEMS), str(file))
        code = run_kept(
            command,
            os.environ,
            folder=into,
            log=into / "evaluator.log",
            meanwhile=partial(_refuse_dead, server),
        )
        _refuse_dead(server)
    values = [float(answer) for answer in file.read_text()] if code == 0 else []
    if values != [one.value for one in arm.samples[TASK]]:
        message = f"the evaluator ended with {code}. Look at its log."
        raise ScoringError(message)
    (score,) = arm.scorecard.tasks
    write_samples(arm.samples[TASK], into / score.samples)
    digest = hashlib.sha256((into / score.samples).read_bytes()).hexdigest()
    return replace(arm.scorecard, tasks=(replace(score, samples_sha256=digest),))


@contextmanager
def _server(values: str, into: Path) -> Iterator[tuple[KeptProcess, int]]:
    """Serve as harness does: on a port that is held, under two keepers."""
    with (
        reserved_port() as port,
        started(
            (*_PROGRAM, "serve", str(port), values),
            os.environ,
            port=port,
            log_path=into / "server.log",
            key="no secret",
        ) as server,
    ):
        while not server.is_listening():
            _refuse_dead(server)
            time.sleep(_LOOK_S)
        yield server, port


def _refuse_dead(server: KeptProcess) -> None:
    """Raise where a server has ended.

    Raises:
        EngineError: it has.
    """
    if not server.is_alive():
        message = f"the server ended with {server.exit_code()}. Look at its log."
        raise EngineError(message)


if __name__ == "__main__":
    typed = next(word for word in sys.argv if word.startswith("--run-dir="))
    sys.exit(main(Path(typed.partition("=")[2])))
