"""What `harness drill` does: the gate tested with known faults, and with attacks, on the canary."""

from collections.abc import Sequence
from pathlib import Path

from harness.artifacts import to_json
from harness.cli.console import Result
from harness.drill import ATTACKS, FAULTS, FORMATS, DrillSetting, tamper, text, text_of_attacks
from harness.drill import drill as put_back
from harness.request import Request


def drilled(
    request: Request, folder: Path, faults: Sequence[str], *, jobs: int, fresh: bool
) -> Result:
    """Put faults back; where none is named all of them, and every format runs without one too."""
    names = faults or [one.name for one in FAULTS]
    formats = () if faults else [form.name for form in FORMATS]
    report = put_back(_setting(request, folder), names, formats, jobs=jobs, fresh=fresh)
    line = f"{text(report)}\nreport: {folder / 'drill.md'}"
    return Result(text=line, values=to_json(report), exit_code=report.exit_code)


def tampered(request: Request, folder: Path, attacks: Sequence[str], *, fresh: bool) -> Result:
    """Tamper with the gate; where no attack is named with all of them."""
    report = tamper(_setting(request, folder), attacks, fresh=fresh)
    line = f"{text_of_attacks(report)}\nreport: {folder / 'tamper.json'}"
    return Result(text=line, values=to_json(report), exit_code=report.exit_code)


def _setting(request: Request, folder: Path) -> DrillSetting:
    engine = request.engine or "reference"
    return DrillSetting(folder, request.suite or "drill", engine, request.vllm, request.engine_args)


def listed_faults() -> Result:
    """Name the faults."""
    keys = ("kind", "format", "what", "incident")
    values = [{"fault": one.name} | {key: getattr(one, key) for key in keys} for one in FAULTS]
    width = max(len(one.name) for one in FAULTS)
    lines = [f"{one.name:<{width}}  {one.kind:<11}  {one.what}" for one in FAULTS]
    return Result(text="\n".join(lines), values=values)


def listed_attacks() -> Result:
    """Name the attacks."""
    values = [{"way": one.name, "what": one.what} for one in ATTACKS]
    width = max(len(one.name) for one in ATTACKS)
    lines = [f"{one.name:<{width}}  {one.what}" for one in ATTACKS]
    return Result(text="\n".join(lines), values=values)
