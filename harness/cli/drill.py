"""`harness drill`: the gate tested with known faults, on the canary."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options as opt
from harness.cli.console import Result, concluding, emit

if TYPE_CHECKING:
    from harness.drill import Fault

FaultName = Annotated[
    list[str] | None, typer.Option("--fault", help="One fault alone; repeatable. Default: all.")
]
ListFaults = Annotated[bool, typer.Option("--list", help="Name the faults and stop.")]
DrillDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the drill's runs.")]
DrillEngine = Annotated[str, typer.Option("--engine", help="reference or vllm.")]
DrillFresh = Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds.")]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Runs at a time, each in a process of its own.")
]
DrillSuite = Annotated[
    str, typer.Option("--suite", help="A suite: a file in evals/suites/, or a path.")
]


def drill(  # noqa: PLR0913 - one parameter an option
    *,
    fault: FaultName = None,
    engine: DrillEngine = "reference",
    vllm: opt.Vllm = None,
    engine_arg: opt.EngineArgs = None,
    suite: DrillSuite = "drill",
    run_dir: DrillDir = Path("runs/drill"),
    jobs: Jobs = 1,
    fresh: DrillFresh = False,
    list_faults: ListFaults = False,
    as_json: opt.AsJson = False,
) -> None:
    """Put known faults back, one at a time; exit 0 if each is caught and correct runs get GO."""
    with concluding(as_json=as_json):
        from harness.artifacts import to_json  # noqa: PLC0415 - only where a command runs
        from harness.drill import (  # noqa: PLC0415 - imports torch
            FAULTS,
            FORMATS,
            Setting,
            text,
        )
        from harness.drill import drill as put_back  # noqa: PLC0415 - imports torch

        if list_faults:
            emit(_listing(FAULTS), as_json=as_json)
            return
        names = fault or [one.name for one in FAULTS]
        formats = () if fault else [form.name for form in FORMATS]
        arguments = tuple(engine_arg or ())
        setting = Setting(run_dir, suite, engine, vllm, arguments)
        report = put_back(setting, names, formats, jobs=jobs, fresh=fresh)
        line = f"{text(report)}\nreport: {run_dir / 'drill.md'}"
        result = Result(text=line, values=to_json(report), exit_code=report.exit_code)
        emit(result, as_json=as_json)


def _listing(faults: "tuple[Fault, ...]") -> Result:
    width = max(len(fault.name) for fault in faults)
    lines = [f"{fault.name:<{width}}  {fault.kind:<11}  {fault.what}" for fault in faults]
    values = [
        {
            "fault": fault.name,
            "kind": fault.kind,
            "format": fault.format,
            "what": fault.what,
            "incident": fault.incident,
        }
        for fault in faults
    ]
    return Result(text="\n".join(lines), values=values)
