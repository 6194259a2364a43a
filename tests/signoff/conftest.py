"""A run that ended GO, made in a moment: small, with real records, judged by the real judge."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from harness import evidence
from harness.artifacts import (
    CalibrationSpec,
    Recipe,
    RunSurroundings,
    Sample,
    Scorecard,
    Surroundings,
    save,
    write_samples,
)
from harness.baselines import read_rerun
from harness.gate import Subject, judge
from harness.installed import ENVIRONMENT_FILE, note_surroundings
from harness.models import digest_folder, sha256_of
from harness.rundir import RunDirectory, open_run
from harness.score import read_arm
from harness.stages import BASELINE, CANDIDATE, JUDGE
from tests.gate.arms import answers, quantized
from tests.nouns import deployment, recipe_of, scorecard, suite_of, task_score, task_spec

TASK = "canary_add"
ITEMS = 300
BASELINE_DIGEST = "b" * 64
SPEC = CalibrationSpec(data="canary", size=1, seq=2, seed=1, batch_tokens=None, layerwise=False)


def write_checkpoint(folder: Path) -> None:
    """Write a few files that lie where a model's do."""
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "small"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "sub" / "vocabulary.txt").write_text("a b c")
    (folder / "harness.json").write_text('{"format": "small"}')


def write_arm(folder: Path, samples: tuple[Sample, ...], card: Scorecard) -> Scorecard:
    """Write an arm of one task; return its scorecard as it lies there."""
    file = folder / "samples" / f"{TASK}.jsonl"
    file.parent.mkdir(parents=True)
    write_samples(samples, file)
    score = task_score(TASK, samples, samples_sha256=sha256_of(file))
    return dataclasses.replace(card, tasks=(score,))


def recipe(**changes: object) -> Recipe:
    """Return what the run was asked for; its suite may sign off."""
    suite = suite_of(task_spec(TASK, items=ITEMS), signoff=True)
    return recipe_of(SPEC, **{"suite": suite, **changes})


class Run:
    """Where a small run lies, and what it is made of."""

    def __init__(self, path: Path, asked: Recipe) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.recipe = asked

    def make(
        self,
        *,
        lost: int = 0,
        exercised: tuple[str, ...] | None = None,
        rerun: bool = True,
        before: Surroundings | None = None,
    ) -> "Run":
        """Write all of it; the candidate loses `lost` items, after a beginning in `before`."""
        with open_run(self.path, self.recipe) as run:
            if before is not None:
                save(RunSurroundings(seen=(before,)), self.path / ENVIRONMENT_FILE)
            note_surroundings(self.recipe.engine, self.path)
            write_checkpoint(self.checkpoint)
            self._score(run, lost=lost, exercised=exercised, rerun=rerun)
            self._judge(run)
        return self

    def _score(
        self, run: RunDirectory, *, lost: int, exercised: tuple[str, ...] | None, rerun: bool
    ) -> None:
        served = quantized(
            model=str(self.checkpoint), checkpoint_digest=digest_folder(self.checkpoint)
        )
        if exercised is not None:
            served = dataclasses.replace(served, exercised=exercised)
        right = answers(TASK, [1.0] * ITEMS)
        wrong = answers(TASK, [0.0] * lost + [1.0] * (ITEMS - lost))
        plain = deployment(checkpoint_digest=BASELINE_DIGEST)
        base = self.path / "baseline"
        card = scorecard("candidate", served)
        run.keep(CANDIDATE, write_arm(self.path, wrong, card), {})
        run.keep(BASELINE, write_arm(base, right, scorecard("baseline", plain)), {})
        if rerun:
            again = write_arm(base / "again", right, scorecard("baseline", plain))
            save(again, base / "again" / "scorecard.json")

    def _judge(self, run: RunDirectory) -> None:
        verdict = judge(
            self.recipe.suite,
            read_arm(self.path / "baseline"),
            read_arm(self.path),
            verified=True,
            rerun=read_rerun(self.path / "baseline"),
            subject=Subject("canary", "NVFP4", "canary"),
        )
        verdict = dataclasses.replace(
            verdict,
            checkpoint_digest=digest_folder(self.checkpoint),
            baseline_digest=BASELINE_DIGEST,
        )
        run.keep(JUDGE, verdict, evidence.ingredients(run, self.recipe, BASELINE_DIGEST))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that may be signed off; never changed."""
    return Run(tmp_path_factory.mktemp("made") / "run", recipe()).make()


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy of it, to be changed."""
    shutil.copytree(made.path, tmp_path / "run")
    return Run(tmp_path / "run", made.recipe)
