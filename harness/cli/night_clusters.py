"""`harness nightly` for machines of a cluster: texts for Slurm and Kubernetes, jobs of Ray."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.cli.console import Result
from harness.cli.nightlies import Typed, told
from harness.errors import UsageError
from harness.nightly import Matrix, Place
from harness.nightly.kubernetes import kubernetes_text
from harness.nightly.on_ray import run_night_on_ray
from harness.nightly.placing import Placed, Placing, read_settings
from harness.nightly.slurm import slurm_text
from harness.nightly.waiting import read_wait, wait_for

_TEXTS: Mapping[str, Callable[[Sequence[Placed], Placing], str]] = {
    "slurm": slurm_text,
    "kubernetes": kubernetes_text,
}


def as_text(typed: Typed, cluster: str, settings: Sequence[str]) -> Result:
    """Print what a cluster is given."""
    if cluster not in _TEXTS:
        message = f"--as {cluster}: there is {' and '.join(_TEXTS)}."
        raise UsageError(message)
    matrix, cells, place = typed.read()
    placing = _placing(typed, matrix, place, settings)
    if cluster == "slurm" and typed.night is None:  # the day on which the script is started
        placing = replace(placing, night="")
    text = _TEXTS[cluster](cells, placing)
    return Result(text=text.rstrip("\n"), values={"as": cluster, "text": text})


def on_ray(typed: Typed, address: str, settings: Sequence[str]) -> Result:
    """Run the cells on a Ray cluster, and collect."""
    matrix, cells, place = typed.read()
    placing = _placing(typed, matrix, place, settings)
    return told(run_night_on_ray(matrix, cells, placing, address), place, typed)


def wait(typed: Typed, text: str) -> None:
    """Wait until all cells have ended on other machines."""
    _, cells, place = typed.read()
    wait_for(cells, place, read_wait(text))


def _placing(typed: Typed, matrix: Matrix, place: Place, settings: Sequence[str]) -> Placing:
    return Placing(
        name=matrix.name,
        matrix=matrix.path.absolute(),
        out=place.out.absolute(),
        folder=Path.cwd(),
        night=place.night,
        settings=read_settings(settings),
        only=tuple(typed.only),
    )
