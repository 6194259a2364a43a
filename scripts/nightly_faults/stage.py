"""A nightly that can be disturbed: forked, so that importing harness is paid for once.

python -m scripts.nightly_faults.stage FOLDER NIGHT CELL runs one cell of it, as a job of a cluster.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer

from harness.artifacts import CellEnding, NightRow, Purpose, digest_of, load
from harness.artifacts.scores import Verdict
from harness.cli.console import concluding
from harness.nightly import Matrix, NightOutcome, Place, load_matrix, run_night, write_reports
from harness.nightly.child import last_line
from harness.nightly.running import Runner
from harness.nights import open_ledger
from harness.stages import JUDGE
from scripts.nightly_faults.processes import MARK, left_after

CELLS = ("one", "two")
PROGRAM = (sys.executable, "-m", "scripts.nightly_faults.cell")
LEFT_S = 30.0
"""What a nightly's processes get to be gone."""
_BUG = 1
_OF_A_DEATH = {CellEnding.INFRA_FAILED, CellEnding.NO_BASELINE}
"""How an attempt ends whose server died; the baseline's leaves nothing to compare with."""
_MATRIX = """version: 1
name: faults
slots: 2
cells:
"""
_CELL = "- {{name: {name}, model: canary, qformat: nvfp4, suite: drill, retries: 3}}\n"


@dataclass(slots=True)
class Stage:
    """One folder of nights, and the nightlies that run in it."""

    folder: Path
    token: str = field(default_factory=lambda: os.urandom(8).hex())

    def __post_init__(self) -> None:
        """Write the matrix."""
        self.folder.mkdir(parents=True, exist_ok=True)
        cells = "".join(_CELL.format(name=name) for name in CELLS)
        (self.folder / "matrix.yaml").write_text(_MATRIX + cells, encoding="utf-8")

    @property
    def out(self) -> Path:
        """The folder of all nights."""
        return self.folder / "out"

    @property
    def matrix(self) -> Matrix:
        """What is run every night."""
        return load_matrix(self.folder / "matrix.yaml")

    def start(self, night: str, before: Callable[[], object] = lambda: None) -> int:
        """Fork a nightly, and return its number.

        Args:
            night: which.
            before: what is done in it first.
        """

        def whole() -> NightOutcome:
            before()
            return self.run(night)

        return self.fork(whole)

    def fork(self, run: Callable[[], NightOutcome]) -> int:
        """Fork a process that runs a night as its command does, and return its number."""
        os.environ[MARK] = self.token
        if pid := os.fork():
            return pid
        code = _BUG
        try:
            os.setsid()
            out = os.open(self.folder / "nightly.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(out, 1)
            os.dup2(out, 2)
            logging.getLogger("harness").setLevel(logging.WARNING)
            with concluding(as_json=False):
                code = int(run().exit_code)
        except typer.Exit as end:
            code = int(end.exit_code)
        except BaseException as error:  # noqa: BLE001 - of a forked process, nothing may come back
            sys.stderr.write(f"BUG {error!r}\n")
        os._exit(code)

    def run(self, night: str, only: tuple[str, ...] = ()) -> NightOutcome:
        """Run a night here, or some cells of it."""
        Runner.program = PROGRAM
        place = Place(self.out, night)
        done = run_night(self.matrix, self.matrix.find(only), place)
        if not only:
            write_reports(done, place)
        return done

    def wait(self, pid: int) -> int:
        """Wait until a nightly has ended; below 0 where a signal ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def has_ended(self, pid: int) -> bool:
        """Return whether a nightly has ended; it is still to be waited for."""
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def undisturbed(self, night: str) -> tuple[float, dict[str, str]]:
        """Run a night in peace: how long it takes, and its verdicts."""
        began = time.monotonic()
        code = self.wait(self.start(night))
        if code:
            message = f"the undisturbed nightly ended with {code}: {self.said(night)}"
            raise RuntimeError(message)
        return time.monotonic() - began, self.verdicts(night)

    def said(self, night: str) -> str:
        """Return what the nightly and the first attempts of its cells printed last."""
        place = Place(self.out, night)
        logs = [place.attempt(c, Purpose.REGULAR, 1).with_suffix(".log") for c in CELLS]
        return "; ".join(last_line(log) for log in (self.folder / "nightly.log", *logs))

    def verdicts(self, night: str) -> dict[str, str]:
        """Return what each cell's verdict says, as a digest of all of it."""
        place = Place(self.out, night)
        found = {}
        for cell in CELLS:
            file = place.run_dir(cell, Purpose.REGULAR) / JUDGE.file
            found[cell] = digest_of(load(Verdict, file)) if file.exists() else "none"
        return found

    def rows(self, night: str) -> list[NightRow]:
        """Return the rows of a night."""
        return [row for row in open_ledger(self.out).rows() if row.night == night]

    def wrong_with(self, night: str, verdicts: dict[str, str]) -> Iterator[str]:
        """Yield what does not hold after a night: what is left, its rows, its verdicts."""
        for pid, command in left_after(self.token, LEFT_S).items():
            yield f"process {pid} is left: {command}"
        if self.verdicts(night) != verdicts:
            yield "a verdict is not that of the undisturbed night"
        for cell in CELLS:
            rows = [row for row in self.rows(night) if row.cell == cell]
            ran = [row for row in rows if row.ending is not CellEnding.NOT_RUN]
            numbers = [row.attempt for row in ran]
            if numbers != list(range(1, len(ran) + 1)):
                yield f"{cell} has rows of the attempts {numbers}"
            if not ran or ran[-1].ending is not CellEnding.GO:
                ended = f"{ran[-1].ending}: {ran[-1].message}" if ran else "without a row"
                yield f"{cell} ended {ended}"
            if any(row.ending not in _OF_A_DEATH for row in ran[:-1]):
                yield f"{cell} ended {', '.join(row.ending for row in ran)}"


def alone(folder: Path, night: str, cell: str) -> int:
    """Run one cell of a night in this process; return its exit code."""
    try:
        with concluding(as_json=False):
            return int(Stage(folder).run(night, (cell,)).exit_code)
    except typer.Exit as end:
        return int(end.exit_code)


if __name__ == "__main__":
    sys.exit(alone(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
