"""What `harness nightly` does, and the text that is printed."""

from collections.abc import Sequence
from pathlib import Path

from harness.artifacts import to_json
from harness.cli.console import Result
from harness.nightly import Cell, load_matrix


def list_cells(path: Path, only: Sequence[str]) -> Result:
    """Name the cells of a matrix and what each types."""
    cells = load_matrix(path).find(only)
    width = max(len(cell.name) for cell in cells)
    lines = [
        f"{cell.name:<{width}}  {_needs(cell):<12}  {' '.join(cell.command)}" for cell in cells
    ]
    return Result(text="\n".join(lines), values=[_values(cell) for cell in cells])


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
