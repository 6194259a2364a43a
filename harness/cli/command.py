"""Turn a function that returns a Result into a command: options, printing and exit code."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from harness.cli import options as opt
from harness.cli.console import Result, concluding, emit
from harness.request import Request, option_of
from harness.shipped import CANARY

Function = Callable[..., Result | None]
_JSON = inspect.Parameter(
    "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=opt.AsJson
)


def command(
    app: typer.Typer, example: str, *fields: str, name: str | None = None, **declared: object
) -> Callable[[Function], Function]:
    """Return a decorator that adds a function to `app` as a command with --json.

    Args:
        app: that the command belongs to.
        example: of typing it, shown by --help.
        fields: of Request that are options of the command; the function gets them as `request`,
            which is about the canary where `model` is none of them.
        name: of the command, where the function has another.
        declared: fields that this command declares in its own way; `...` for one that has to be
            typed.
    """

    def decorate(function: Function) -> Function:
        own = inspect.signature(function).parameters
        rest = [p for p in own.values() if p.name not in {"request", "as_json"}]
        shown = [*(_parameter(field, declared.get(field)) for field in fields), *rest, _JSON]

        @functools.wraps(function)
        def run(*, as_json: bool, **values: Any) -> None:  # noqa: ANN401 - what typer parsed
            with concluding(as_json=as_json):
                if fields:
                    request = _request({field: values.pop(field) for field in fields})
                    values["request"] = request
                    _go_offline(request.offline)
                if "as_json" in own:
                    values["as_json"] = as_json
                result = function(**values)
                if result is not None:
                    emit(result, as_json=as_json)

        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in shown}
        app.command(name, epilog=f"Example: harness {example}")(run)
        return function

    return decorate


def _go_offline(named: Path | None) -> None:
    """Use a prefetched folder, named here or by a process that started this one.

    Libraries read their settings as they are imported, so it comes before anything else.
    """
    folder = named or os.environ.get("HARNESS_OFFLINE")
    if folder:
        from harness import offline  # noqa: PLC0415 - only where it is asked for

        offline.use(Path(folder))


def _request(values: Mapping[str, Any]) -> Request:
    typed: dict[str, Any] = {"model": CANARY}
    typed |= {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Request(**typed)


def _parameter(name: str, declared: object) -> inspect.Parameter:
    """Return a field of Request as typer takes it, by its declaration or by the command's own."""
    hint = get_type_hints(Request, include_extras=True)[name]
    default = next(f.default for f in dataclasses.fields(Request) if f.name == name)
    if declared is ... or default is dataclasses.MISSING:
        default = inspect.Parameter.empty
    if declared not in (None, ...) and type(None) in get_args(get_args(declared)[0]):
        default = None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=_option(name, hint) if declared in (None, ...) else declared,
    )


def _option(name: str, hint: object) -> object:
    kind, help_text, *_ = get_args(hint)
    dashed = option_of(name)
    names = [dashed]
    if "-" in dashed[2:] and "/" not in dashed:  # Model-Optimizer's users type underscores
        names.append(f"--{dashed[2:].replace('-', '_')}")
    if get_origin(kind) is tuple:
        kind = list[str]
    return Annotated[kind, typer.Option(*names, help=help_text)]
