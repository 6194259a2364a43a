"""The matrix of a nightly: a YAML file, and the cells that it lists or multiplies out.

A cell is one `harness e2e` or `harness gate` with its options, by the names of the options, and
what a nightly needs besides: GPUs, hardware, retries, a waiver. Paths are looked for from the
folder of the matrix, so that the same file means the same on every machine that shares it.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, Field, ValidationError, create_model

from harness.artifacts import digest_of
from harness.artifacts.limits import Name, Number, Stripped
from harness.artifacts.nights import CellWaiver
from harness.errors import MatrixError
from harness.nightly.products import MAX_CELLS, ProductFile, cells_of, refuse
from harness.recipe import Strict, first_double, mistakes_in, nearest, read_yaml
from harness.request import JUDGING, MAKING, Request, as_typed

E2E_OPTIONS = (*MAKING, *JUDGING, "baseline")
GATE_OPTIONS = ("revision", "device", *JUDGING)
"""Besides the checkpoint and the baseline."""
_MAX_RETRIES = 10
_TEXTS = ("model", "baseline", "suite", "calib_data")
"""Options that are a name or a path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One gate of the matrix."""

    name: str
    """Also of its folder in a night."""
    request: Request
    """As the command gets it; of a gate, `model` is the baseline."""
    checkpoint: Path | None = None
    """That was made elsewhere and is gated; None for a cell that makes its own."""
    gpus: int = 0
    """That it runs on; one without runs on the CPU, and sees no GPU."""
    hardware: str = ""
    """Part of the name of the GPU that it is for, such as `H200`; empty for any."""
    retries: int = 0
    """At most, and only of what may pass when it is done again."""
    waiver: CellWaiver | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """Return what is typed for it, without `harness` and the run directory."""
        if self.checkpoint is None:
            return ("e2e", *as_typed(self.request, E2E_OPTIONS))
        baseline = f"--baseline={self.request.model}"
        return "gate", str(self.checkpoint), baseline, *as_typed(self.request, GATE_OPTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """All cells of a nightly."""

    name: str
    path: Path
    slots: int
    """Cells without GPUs that run at a time on one machine."""
    cells: tuple[Cell, ...]

    @property
    def digest(self) -> str:
        """Return the sha256 of what every cell is."""
        return digest_of([[c.name, list(c.command)] for c in self.cells])

    def find(self, names: Sequence[str]) -> tuple[Cell, ...]:
        """Return the cells of these names, in the matrix's order; all where none is named.

        Raises:
            MatrixError: there is no such cell.
        """
        known = [cell.name for cell in self.cells]
        for name in names:
            if name not in known:
                close = nearest(name, known, count=1)
                hint = f"Did you mean '{close[0]}'? " if close else ""
                message = (
                    f"'{self.path}' has no cell '{name}'. {hint}`harness nightly {self.path} "
                    "--list` names them."
                )
                raise MatrixError(message)
        return tuple(cell for cell in self.cells if not names or cell.name in names)


class _OwnKeys(Strict):
    """What a cell has besides the options of its command."""

    name: Name
    model: str | None = None
    checkpoint: Path | None = None
    version: Annotated[str | None, Field(pattern=r"^[0-9][A-Za-z0-9.+]*$")] = None
    """Of vLLM, in the environment that `scripts/setup-vllm --version` makes."""
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    hardware: Stripped | None = None
    retries: Annotated[int, Field(ge=0, le=_MAX_RETRIES)] | None = None
    waiver: CellWaiver | None = None


def _cell_schema() -> type[BaseModel]:
    hints = get_type_hints(Request)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], field.default)
        for field in dataclasses.fields(Request)
        if field.name != "model"
    }
    return create_model("CellFile", __base__=_OwnKeys, **fields)


_CELL = _cell_schema()


class MatrixFile(Strict):
    """The whole file; its cells are read one by one."""

    version: Literal[1]
    name: Name
    slots: Annotated[int, Field(ge=1, le=1024)] = 1
    retries: Annotated[Number, Field(le=_MAX_RETRIES)] = 0
    """Of each cell that does not say it."""
    cells: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_CELLS)] = ()
    products: Annotated[tuple[ProductFile, ...], Field(max_length=MAX_CELLS)] = ()


def load_matrix(path: Path) -> Matrix:
    """Read a matrix.

    Raises:
        MatrixError: everything that is wrong with the file, a cell at a time.
    """
    file = read_yaml(path, MatrixFile, MatrixError)
    listed = [*file.cells, *cells_of(file.products, path)]
    if not 0 < len(listed) <= MAX_CELLS:
        refuse(path, [f"it has {len(listed)} cells, of 1 to {MAX_CELLS}"])
    cells: list[Cell] = []
    mistakes: list[str] = []
    for number, values in enumerate(listed, start=1):
        name = values.get("name", f"number {number}")
        try:
            cells.append(_cell(values, file.retries, path.absolute().parent))
        except ValidationError as error:
            mistakes += [f"cell '{name}', {one}" for one in mistakes_in(error, _CELL.model_fields)]
        except ValueError as error:
            mistakes.append(f"cell '{name}': {error}")
    twice = first_double([cell.name.lower() for cell in cells])
    if twice is not None:
        mistakes.append(f"two cells are called '{twice}', and their folders would be one")
    if mistakes:
        refuse(path, mistakes)
    return Matrix(name=file.name, path=path, slots=file.slots, cells=tuple(cells))


def _cell(values: Mapping[str, Any], retries: int, folder: Path) -> Cell:
    """Return one cell.

    Raises:
        ValueError: what it says does not fit together.
    """
    file = _CELL.model_validate(values)
    own = {name: getattr(file, name) for name in _OwnKeys.model_fields}
    typed = {
        name: _from(folder, name, getattr(file, name))
        for name in _CELL.model_fields
        if name not in own and name in file.model_fields_set
    }
    if own["version"] is not None:
        typed |= _environment(own["version"], typed)
    request = _request(own, typed, folder)
    for problem in _problems(own, request):
        raise ValueError(problem)
    return Cell(
        name=own["name"],
        request=request,
        checkpoint=_from(folder, "checkpoint", own["checkpoint"]),
        gpus=own["gpus"],
        hardware=own["hardware"] or "",
        retries=retries if own["retries"] is None else own["retries"],
        waiver=own["waiver"],
    )


def _request(own: Mapping[str, Any], typed: Mapping[str, Any], folder: Path) -> Request:
    """Return the options of a cell's command.

    Raises:
        ValueError: it is neither a run that makes its checkpoint nor a gate, or is half of both.
    """
    model = own["model"]
    if own["checkpoint"] is None:
        if model is None or ("qformat" in typed) == ("recipe" in typed):
            message = (
                "give model with one of qformat and recipe, or checkpoint with baseline, the "
                "unquantized model"
            )
            raise ValueError(message)
        return Request(model=_from(folder, "model", model), **typed)
    if model is not None or typed.get("baseline") is None:
        message = "a checkpoint is compared with baseline, the unquantized model; model is not said"
        raise ValueError(message)
    given = {name: value for name, value in typed.items() if name != "baseline"}
    strange = [name for name in given if name not in GATE_OPTIONS]
    if strange:
        message = f"{strange[0]} is for a cell that makes its checkpoint, and this one has one"
        raise ValueError(message)
    return Request(model=str(typed["baseline"]), **given)


def _environment(version: str, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option that stands for a version of vLLM.

    Raises:
        ValueError: the engine is another, or is named in two ways.
    """
    if typed.get("engine") != "vllm" or typed.get("vllm") is not None:
        message = f"version {version} is for engine: vllm without vllm, the environment's path"
        raise ValueError(message)
    return {"vllm": Path(f".venv-vllm-{version}").absolute()}


def _problems(own: Mapping[str, Any], request: Request) -> Iterator[str]:
    gpus, size = own["gpus"], max(request.tensor_parallel_size, request.ranks)
    if gpus and gpus < size:
        yield f"gpus {gpus}: its servers and ranks take {size}"
    if own["hardware"] and not gpus:
        yield f"hardware {own['hardware']}: it has no gpus; say how many it takes"
    if gpus and request.device == "cpu":
        yield f"gpus {gpus}, and device is cpu"


def _from(folder: Path, option: str, value: Any) -> Any:  # noqa: ANN401 - of any option
    """Return a path as seen from the matrix's folder; what is none as it is."""
    if isinstance(value, tuple):
        return tuple(_from(folder, option, one) for one in value)
    if isinstance(value, Path):
        return folder / value.expanduser()
    is_path = isinstance(value, str) and option in _TEXTS and ("/" in value or "." in value)
    return str(folder / value) if is_path and (folder / value).exists() else value
