"""Where a nightly's cells are to run on a cluster, and what is typed there for each of them.

A text for a cluster names cells by `harness nightly MATRIX --only CELL`: what a cell is stays in
the matrix, and the text holds names and paths alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import UsageError

_NIGHT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*(\.[A-Za-z0-9 ._-]+)?")
_HARDWARE = "hardware"


class Placed(Protocol):
    """What a cluster has to know of a cell."""

    @property
    def name(self) -> str:
        """Its name in the matrix."""

    @property
    def gpus(self) -> int:
        """That it runs on."""

    @property
    def hardware(self) -> str:
        """Part of the GPU's name; empty for any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placing:
    """A nightly on a cluster, whose machines share the folders of the matrix and of `out`."""

    name: str
    """Of the matrix."""
    matrix: Path
    out: Path
    folder: Path
    """In which the commands are typed."""
    night: str
    """Empty for the day on which the text is started, where the cluster can say it."""
    settings: Mapping[str, str]
    """What the cluster wants besides, such as a partition or an image."""
    only: tuple[str, ...] = ()
    """The cells that are meant; empty for the whole matrix."""

    def __post_init__(self) -> None:
        """Refuse what no text can hold.

        Raises:
            UsageError: a path holds a control character, or the night is no name.
        """
        for path in (self.matrix, self.out, self.folder):
            if not str(path).isprintable():
                message = f"{str(path)!r} holds a control character. Rename it."
                raise UsageError(message)
            if not path.is_absolute():
                message = f"'{path}' is looked for on other machines. Name it from the root on."
                raise UsageError(message)
        if self.night and not _NIGHT.fullmatch(self.night):
            message = f"--night {self.night!r}: a night is called by letters, digits, '.', '_', '-'"
            raise UsageError(message)

    @property
    def where(self) -> tuple[str, ...]:
        """Return the options that name the night."""
        return "--night", self.night, "--out", str(self.out)

    def arguments(self, *, only: str | None = None) -> list[str]:
        """Return the arguments of `harness` that run one cell, or else collect."""
        what = ["--collect"] if only is None else []
        names = self.only if only is None else (only,)
        chosen = [word for name in names for word in ("--only", name)]
        return ["nightly", str(self.matrix), *what, *chosen, *self.where]

    def hardware(self, cell: Placed) -> str | None:
        """Return what the cluster calls the GPUs that a cell is for; None for any.

        Raises:
            UsageError: that was not said.
        """
        if not cell.hardware or not cell.gpus:
            return None
        key = f"{_HARDWARE}.{cell.hardware}"
        if key not in self.settings:
            message = (
                f"cell '{cell.name}' is for '{cell.hardware}', and what the cluster calls it was "
                f"not said. Type --set '{key}=NAME'."
            )
            raise UsageError(message)
        return self.settings[key]


def read_settings(typed: Iterable[str]) -> dict[str, str]:
    """Return the settings of `KEY=VALUE`.

    Raises:
        UsageError: one is not so, or stands there twice.
    """
    found: dict[str, str] = {}
    for one in typed:
        key, has_value, value = one.partition("=")
        if not has_value or not _KEY.fullmatch(key):
            message = f"--set {one!r} is not KEY=VALUE, such as partition=gpu."
            raise UsageError(message)
        if key in found:
            message = f"--set {key} is typed twice. Leave one out."
            raise UsageError(message)
        if not value.isprintable():
            message = f"--set {one!r} holds a control character. Leave it out."
            raise UsageError(message)
        found[key] = value
    return found


def refuse_unknown(settings: Mapping[str, str], known: Sequence[str], cluster: str) -> None:
    """Refuse a setting that the cluster has not.

    Raises:
        UsageError: with those that it has.
    """
    for key in settings:
        if key not in known and not key.startswith(f"{_HARDWARE}."):
            message = f"--set {key}: {cluster} has {', '.join([*known, _HARDWARE])}.NAME."
            raise UsageError(message)


def of_equal_needs(
    cells: Sequence[Placed], placing: Placing
) -> dict[tuple[int, str | None], list[Placed]]:
    """Return the cells by GPUs and hardware, in their order.

    Raises:
        UsageError: there is no cell, or the cluster's name of a hardware was not said.
    """
    if not cells:
        message = f"'{placing.matrix}' has no cell to run."
        raise UsageError(message)
    found: dict[tuple[int, str | None], list[Placed]] = {}
    for cell in cells:
        found.setdefault((cell.gpus, placing.hardware(cell)), []).append(cell)
    return found


def of_hardware(placing: Placing) -> list[str]:
    """Return the keys of settings that name hardware."""
    return [key for key in placing.settings if key.startswith(f"{_HARDWARE}.")]
