"""`harness drill`: the gate tested with known faults, on the canary."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options as opt
from harness.cli.console import Result, concluding, emit

if TYPE_CHECKING:
    from harness.drill import Fault, Setting, Way

FaultName = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", help="One fault (or way, with --tamper) alone; repeatable. Default: all."
    ),
]
Tamper = Annotated[
    bool,
    typer.Option(
        "--tamper", help="Tamper with the gate itself: files, records, baselines, reports."
    ),
]
ListFaults = Annotated[bool, typer.Option("--list", help="Name the faults and stop.")]
DrillDir = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Folder of its runs. Default: runs/drill, runs/tamper."),
]
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
    tamper: Tamper = False,
    engine: DrillEngine = "reference",
    vllm: opt.Vllm = None,
    engine_arg: opt.EngineArgs = None,
    suite: DrillSuite = "drill",
    run_dir: DrillDir = None,
    jobs: Jobs = 1,
    fresh: DrillFresh = False,
    list_faults: ListFaults = False,
    as_json: opt.AsJson = False,
) -> None:
    """Put known faults back, one at a time; exit 0 if each is caught and correct runs get GO."""
    with concluding(as_json=as_json):
        from harness.drill import FAULTS, WAYS, Setting  # noqa: PLC0415 - imports torch

        if list_faults:
            emit(_listing_of_ways(WAYS) if tamper else _listing(FAULTS), as_json=as_json)
            return
        folder = run_dir or Path("runs/tamper" if tamper else "runs/drill")
        setting = Setting(folder, suite, engine, vllm, tuple(engine_arg or ()))
        if tamper:
            result = _tampered(setting, fault or [], fresh=fresh)
        else:
            result = _drilled(setting, fault or [], jobs=jobs, fresh=fresh)
        emit(result, as_json=as_json)


def _drilled(setting: "Setting", faults: list[str], *, jobs: int, fresh: bool) -> Result:
    from harness.artifacts import to_json  # noqa: PLC0415 - only where a command runs
    from harness.drill import FAULTS, FORMATS, text  # noqa: PLC0415 - imports torch
    from harness.drill import drill as put_back  # noqa: PLC0415 - imports torch

    names = faults or [one.name for one in FAULTS]
    formats = () if faults else [form.name for form in FORMATS]
    report = put_back(setting, names, formats, jobs=jobs, fresh=fresh)
    line = f"{text(report)}\nreport: {setting.folder / 'drill.md'}"
    return Result(text=line, values=to_json(report), exit_code=report.exit_code)


def _tampered(setting: "Setting", ways: list[str], *, fresh: bool) -> Result:
    from harness.artifacts import to_json  # noqa: PLC0415 - only where a command runs
    from harness.drill import tamper, text_of_ways  # noqa: PLC0415 - imports torch

    report = tamper(setting, ways, fresh=fresh)
    line = f"{text_of_ways(report)}\nreport: {setting.folder / 'tamper.json'}"
    return Result(text=line, values=to_json(report), exit_code=report.exit_code)


def _listing_of_ways(ways: "tuple[Way, ...]") -> Result:
    width = max(len(way.name) for way in ways)
    lines = [f"{way.name:<{width}}  {way.what}" for way in ways]
    values = [{"way": way.name, "what": way.what} for way in ways]
    return Result(text="\n".join(lines), values=values)


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
