"""What `harness nightly` does, and the text that is printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from harness.artifacts import to_json
from harness.cli.console import Result
from harness.cli.tracked import track_night
from harness.cli.trends import write_page
from harness.errors import ExitCode, UsageError
from harness.nightly import (
    Cell,
    Matrix,
    NightOutcome,
    Place,
    add_to_summary,
    annotations_of,
    check_cells,
    collect,
    in_github,
    lines_of,
    load_matrix,
    run_night,
    this_night,
    workflow_of,
    write_reports,
)
from harness.tracking import Trackers


class Typed(NamedTuple):
    """Which cells, in which night, and where."""

    matrix: Path
    only: Sequence[str]
    night: str | None
    out: Path | None
    trackers: Trackers = Trackers()

    def read(self) -> tuple[Matrix, tuple[Cell, ...], Place]:
        """Return the matrix, the cells that are meant, and where they are kept."""
        matrix = load_matrix(self.matrix)
        out = self.out or Path("runs", "nightly", matrix.name)
        return (
            matrix,
            matrix.find(self.only),
            Place(out, this_night() if self.night is None else self.night),
        )


def list_cells(typed: Typed) -> Result:
    """Name the cells of a matrix and what each types."""
    _, cells, _ = typed.read()
    width = max(len(cell.name) for cell in cells)
    lines = [
        f"{cell.name:<{width}}  {_needs(cell):<12}  {' '.join(cell.command)}" for cell in cells
    ]
    return Result(text="\n".join(lines), values=[_values(cell) for cell in cells])


def check(typed: Typed) -> Result:
    """Say what would stop each cell."""
    _, cells, place = typed.read()
    found = check_cells(cells, place)
    lines = [
        f"{one.cell}: {one.problem or 'nothing is wrong'}"
        + (f" (recipe and suite alone: {one.note})" if one.note else "")
        for one in found
    ]
    is_wrong = any(one.problem for one in found)
    return Result(
        text="\n".join(lines),
        values=[one._asdict() for one in found],
        exit_code=ExitCode.USAGE if is_wrong else ExitCode.GO,
    )


def workflow(typed: Typed) -> Result:
    """Print a workflow for self-hosted runners."""
    if typed.out is None or not typed.out.is_absolute():
        message = (
            "a checkout empties the repository's folder, so the nights lie outside of it. Type "
            "--out with an absolute path that every runner sees."
        )
        raise UsageError(message)
    text = workflow_of(load_matrix(typed.matrix), typed.out)
    return Result(text=text, values={"workflow": text})


def ran(typed: Typed) -> Result:
    """Run the cells."""
    matrix, cells, place = typed.read()
    return told(run_night(matrix, cells, place), place, typed)


def collected(typed: Typed, sources: Sequence[Path]) -> Result:
    """Gather what was run elsewhere."""
    matrix, cells, place = typed.read()
    return told(collect(matrix, cells, place, sources), place, typed)


def told(night: NightOutcome, place: Place, typed: Typed) -> Result:
    """Say how a night ended; the reports are of a whole matrix, and not of a cell alone."""
    files = [] if typed.only else [*write_reports(night, place), write_page(place.out)]
    if in_github():
        for line in annotations_of(night):
            typer.echo(line, err=True)
        if not typed.only:
            add_to_summary(night)
    track_night(typed.trackers, night, place)
    lines = [*lines_of(night), *(f"report: {file}" for file in files)]
    values = {
        "exit_code": int(night.exit_code),
        "out": str(place.out),
        "files": [str(file) for file in files],
        "night": to_json(night),
    }
    return Result(text="\n".join(lines), values=values, exit_code=night.exit_code)


def _needs(cell: Cell) -> str:
    if not cell.gpus:
        return "CPU"
    return f"{cell.gpus} x {cell.hardware or 'GPU'}"


def _values(cell: Cell) -> dict[str, object]:
    return {
        "cell": cell.name,
        "command": ["harness", *cell.command],
        "gpus": cell.gpus,
        "hardware": cell.hardware,
        "retries": cell.retries,
        "waiver": to_json(cell.waiver),
    }
