"""A few cells and where they are placed, for the texts of clusters."""

from pathlib import Path
from typing import Any, NamedTuple

from harness.nightly.placing import Placing

ODD = """it's "odd" $(touch pwned) `x` 100% &; *"""


class Cell(NamedTuple):
    name: str
    gpus: int = 0
    hardware: str = ""


CELLS = (
    Cell("canary-nvfp4"),
    Cell("moe-fp8", 2, "H200"),
    Cell("moe-nvfp4", 2, "H200"),
    Cell("dense", 1),
    Cell("canary_fp8.v33"),
)


def placing(folder: Path, **settings: Any) -> Placing:  # noqa: ANN401 - text
    return Placing(
        name="release",
        matrix=folder / "matrix.yaml",
        out=folder / "nights",
        folder=folder,
        night=settings.pop("night", "2031-12-31"),
        settings={key.replace("_", "-"): value for key, value in settings.items()}
        | {"hardware.H200": "h200"},
    )
