"""`harness nightly` for machines of a cluster: texts for Slurm and Kubernetes, jobs of Ray."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness.cli.console import Result
from harness.cli.nightlies import Typed, collected, told, workflow
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


class Elsewhere(NamedTuple):
    """What is typed of a cluster."""

    text_for: str | None
    ray: str | None
    settings: Sequence[str]
    wait: str | None
    sources: Sequence[Path]

    @property
    def is_meant(self) -> bool:
        """Return whether other machines run the cells."""
        return any(one is not None for one in (self.text_for, self.ray, self.wait))


def on_cluster(typed: Typed, elsewhere: Elsewhere) -> Result:
    """Print what others are given, run on a Ray cluster, or wait for other machines."""
    if elsewhere.text_for is not None:
        return _as_text(typed, elsewhere.text_for, elsewhere.settings)
    matrix, cells, place = typed.read()
    if elsewhere.ray is not None:
        placing = _placing(typed, matrix, place, elsewhere.settings)
        return told(run_night_on_ray(matrix, cells, placing, elsewhere.ray), place, typed)
    wait_for(cells, place, read_wait(elsewhere.wait or ""))
    return collected(typed, elsewhere.sources)


def _as_text(typed: Typed, cluster: str, settings: Sequence[str]) -> Result:
    if cluster == "github":
        return workflow(typed)
    if cluster not in _TEXTS:
        message = f"--as {cluster}: there is {', '.join(_TEXTS)} and github."
        raise UsageError(message)
    matrix, cells, place = typed.read()
    placing = _placing(typed, matrix, place, settings)
    if cluster == "slurm" and typed.night is None:  # the day on which the script is started
        placing = replace(placing, night="")
    text = _TEXTS[cluster](cells, placing)
    return Result(text=text.rstrip("\n"), values={"as": cluster, "text": text})


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
