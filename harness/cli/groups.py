"""Options that travel together: a dataclass as one parameter of a command.

Each field is an option of its own on the command line; its name is that of the field of `Request`
which it fills.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from harness.cli import options as opt

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from harness.recipe.load import Request

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationOptions:
    """What is run through the model before it is quantized, and how."""

    calib_data: opt.CalibData = None
    calib_size: opt.CalibSize = None
    calib_seq: opt.CalibSeq = None
    layerwise: opt.Layerwise = None
    experts: opt.Experts = None
    ranks: opt.RanksOption = 1
    gpu_memory: opt.GpuMemory = None
    host_memory: opt.HostMemory = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """What serves both arms."""

    engine: opt.Engine = None
    numerics: opt.Numerics = None
    engine_args: opt.EngineArgs = None
    tensor_parallel_size: opt.TensorParallel = 1
    vllm: opt.Vllm = None
    image: opt.Image = None


def requested(model: str, *groups: CalibrationOptions | EngineOptions, **rest: Any) -> "Request":  # noqa: ANN401 - fields of Request
    """Return what was typed: `model`, the options of `groups`, and the fields in `rest`."""
    from harness.recipe.load import Request  # noqa: PLC0415 - its package imports torch

    values = {name: value for group in groups for name, value in _values(group).items()}
    if "engine_args" in values:
        values["engine_args"] = tuple(values["engine_args"] or ())
    return Request(model=model, **values, **rest)


def grouped(command: Callable[..., R]) -> Callable[..., R]:
    """Let typer see each field of a command's dataclass parameters as an option of its own."""
    groups: dict[str, type[DataclassInstance]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        annotation = parameter.annotation
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            groups[parameter.name] = annotation
            parameters += _options(annotation)
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def expanded(**typed: Any) -> R:  # noqa: ANN401 - what typer parsed
        built = {name: _taken(group, typed) for name, group in groups.items()}
        return command(**typed, **built)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _options(group: "type[DataclassInstance]") -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _taken(group: "type[DataclassInstance]", typed: dict[str, Any]) -> object:
    return group(**{field.name: typed.pop(field.name) for field in dataclasses.fields(group)})


def _values(group: CalibrationOptions | EngineOptions) -> dict[str, Any]:
    return {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
