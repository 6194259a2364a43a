"""A nightly as arrays of Slurm: a script that submits one task a cell, and a job that collects.

Cells of equal needs are one array. A task that is pre-empted is put into the queue again and
continues in its run directory; what may be tried again after a failure is `harness nightly`'s own
business. The job that collects waits for the end of all, whatever it is.
"""

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.errors import UsageError
from harness.nightly.placing import Placed, Placing, of_equal_needs, of_hardware

_OURS = (
    *("array", "chdir", "dependency", "export", "gpus", "gres", "job-name", "nodes", "ntasks"),
    *("open-mode", "output", "parsable", "requeue", "signal", "wrap"),
)
_OPTION = re.compile(r"[a-z]+(-[a-z]+)*")
_GRES_TYPE = re.compile(r"[A-Za-z0-9._-]+")
_WARNING_S = 120
"""Between SIGTERM and the end of a job's time."""
_HEAD = """\
#!/usr/bin/env bash
# {title}
# bash THIS_FILE [NIGHT] submits it; a night that is submitted again continues.
set -euo pipefail
export HARNESS_NIGHT="{night}"
if [[ ! $HARNESS_NIGHT =~ ^[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}$ ]]; then
  echo "a night is called by letters, digits, '.', '_' and '-'" >&2
  exit 2
fi
mkdir -p -- {logs}
jobs=()
"""
_ARRAY = """
# {what}
job="$({sbatch} <<'TASK'
#!/usr/bin/env bash
set -euo pipefail
cells=(
{cells}
)
cell="${{cells[SLURM_ARRAY_TASK_ID]}}"
exec {harness}
TASK
)"
jobs+=("${{job%%;*}}")
"""
_COLLECT = """
dependency="afterany$(printf ':%s' "${{jobs[@]}}")"
job="$({sbatch} --dependency="$dependency" <<'TASK'
#!/usr/bin/env bash
set -euo pipefail
exec {harness}
TASK
)"
echo "night $HARNESS_NIGHT: ${{#jobs[@]}} array(s), collected by job ${{job%%;*}}"
"""


def slurm_text(cells: Sequence[Placed], placing: Placing) -> str:
    """Return the script that submits the cells and what collects them.

    Raises:
        UsageError: a setting or a path cannot be handed to sbatch.
    """
    _check(placing)
    return "".join(_parts(cells, placing))


def _parts(cells: Sequence[Placed], placing: Placing) -> Iterator[str]:
    groups = of_equal_needs(cells, placing)
    yield _HEAD.format(
        title=f"The nightly {placing.name}: {len(cells)} cells.",
        night=placing.night or "${1:-$(date -u +%F)}",
        logs=shlex.quote(str(placing.out / "logs")),
    )
    for number, ((gpus, hardware), members) in enumerate(groups.items(), start=1):
        own = {"array": f"0-{len(members) - 1}", "signal": f"B:TERM@{_WARNING_S}"}
        if gpus:
            own["gres"] = f"gpu:{hardware}:{gpus}" if hardware else f"gpu:{gpus}"
        kind = f" of {hardware}" if hardware else ""
        yield _ARRAY.format(
            what=f"{len(members)} cell(s), each on {gpus} GPU(s){kind}",
            sbatch=_sbatch(placing, str(number), own, log="%x-%A_%a.log"),
            cells="\n".join(f"  {shlex.quote(cell.name)}" for cell in members),
            harness=_harness(placing, only="$cell"),
        )
    yield _COLLECT.format(
        sbatch=_sbatch(placing, "collect", {}, log="%x-%j.log"),
        harness=_harness(placing, only=None),
    )


def _sbatch(placing: Placing, what: str, own: Mapping[str, str], *, log: str) -> str:
    """Return how a job is submitted; an option with an empty value is one without."""
    logs = str(placing.out / "logs").replace("%", "%%")
    options = {
        "parsable": "",
        "job-name": f"harness-{placing.name}-{what}",
        "export": "ALL",
        "nodes": "1",
        "ntasks": "1",
        "chdir": str(placing.folder),
        "output": f"{logs}/{log}",
        "requeue": "",
        "open-mode": "append",
        **own,
    }
    hardware = of_hardware(placing)
    options |= {key: value for key, value in placing.settings.items() if key not in hardware}
    typed = [f"--{key}={value}" if value else f"--{key}" for key, value in options.items()]
    return shlex.join(["sbatch", *typed])


def _harness(placing: Placing, *, only: str | None) -> str:
    """Return the command with the shell's variables where a task is told what it is."""
    variables = {"$cell": '"$cell"', "$HARNESS_NIGHT": '"$HARNESS_NIGHT"'}
    arguments = replace(placing, night="").arguments(only=only)
    arguments[arguments.index("--night") + 1] = "$HARNESS_NIGHT"
    typed = [sys.executable, "-m", "harness", *arguments]
    return " ".join(variables.get(one) or shlex.quote(one) for one in typed)


def _check(placing: Placing) -> None:
    if "\\" in str(placing.out):
        message = f"'{placing.out}' holds a backslash, which sbatch does not take. Rename it."
        raise UsageError(message)
    for key, value in placing.settings.items():
        if key in of_hardware(placing):
            if not _GRES_TYPE.fullmatch(value):
                message = f"--set '{key}={value}': a type of gres has letters, digits, '._-'."
                raise UsageError(message)
        elif not _OPTION.fullmatch(key) or key in _OURS:
            why = "is set by harness" if key in _OURS else "is no option of sbatch"
            message = f"--set {key}: {why}. Leave it out."
            raise UsageError(message)
