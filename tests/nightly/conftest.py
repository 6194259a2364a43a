"""A nightly whose cells play runs that were made before: real run directories, and no model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import evidence
from harness.artifacts import CellEnding, Decision, NightRow
from harness.errors import DiskFullError, EngineError, ReasonCode, RejectedError, StageError
from harness.gate import reject
from harness.nightly import Cell, Place, load_matrix
from harness.nightly.child import HARNESS
from harness.nightly.running import Board, CellState, Runner
from harness.nightly.slots import Slots
from harness.nights import Ledger, open_ledger
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory
from harness.runs import run_job
from harness.stages import JUDGE
from tests.nightly.test_matrix import write

PLAYER = Path(__file__).with_name("player.py")


def _judging(decision: Decision) -> Callable[[Job, RunDirectory], None]:
    def judge(job: Job, run: RunDirectory) -> None:
        (run.path / "checkpoint").mkdir(exist_ok=True)
        (run.path / "checkpoint" / "config.json").write_text("{}")
        error = RejectedError("made up", reason=ReasonCode.SMOKE_FAILED)
        verdict = replace(reject(error, job.recipe, scheme="NVFP4"), decision=decision)
        run.stage(JUDGE, made_from=evidence.ingredients(run, job.recipe), make=lambda: verdict)

    return judge


def _failing(error: Exception) -> Callable[[Job, RunDirectory], None]:
    def work(job: Job, run: RunDirectory) -> None:
        del job, run
        raise error

    return work


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of each ending, made by the real code."""
    folder = tmp_path_factory.mktemp("runs")
    job = preflight(Request(model="canary", qformat="nvfp4"), scored=False)
    works = {
        "go": _judging(Decision.GO),
        "no-go": _judging(Decision.NO_GO),
        "inconclusive": _judging(Decision.INCONCLUSIVE),
        "died": _failing(EngineError("the server died")),
        "broken": _failing(StageError("the stage is broken")),
        "disk": _failing(DiskFullError("no space is left")),
    }
    for name, work in works.items():
        run_job(job, into=folder / name, work=work)
    return folder


class Quiet:
    def show(self, states: Sequence[CellState]) -> None:
        """Show nothing."""


class Stage:
    """A nightly: cells, each with what its attempts play in turn."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self.folder, self.runs = folder, runs
        self.place = Place(folder / "out", "n1")

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.place.out)

    def cells(self, plays: dict[str, str], **keys: Any) -> tuple[Cell, ...]:  # noqa: ANN401
        """Return cells by name; a play is words for its attempts, such as `died go`."""
        for name, play in plays.items():
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "play").write_text(play)
        listed = [{"name": n, "model": n, "qformat": "nvfp4", **keys} for n in plays]
        return load_matrix(write(self.folder, cells=listed)).cells

    def runner(self, slots: int = 1, board: Board | None = None) -> Runner:
        runner = Runner(self.place, self.ledger, Slots((), slots), board or Quiet())
        runner.program = (HARNESS[0], "-S", str(PLAYER), str(self.folder), str(self.runs))
        return runner

    def run(self, *cells: Cell, slots: int = 1) -> list[NightRow]:
        self.runner(slots).run(cells, share=1)
        return list(self.ledger.rows())

    def endings(self) -> list[tuple[str, CellEnding, int, str]]:
        return [(r.cell, r.ending, r.attempt, r.purpose) for r in self.ledger.rows()]

    def played(self, name: str) -> int:
        """Return how many attempts were made."""
        return len((self.folder / name / "played").read_text().splitlines())


@pytest.fixture
def stage(tmp_path: Path, runs: Path) -> Stage:
    logging.getLogger("harness").setLevel(logging.WARNING)
    return Stage(tmp_path, runs)
