"""Which stage `harness localize` names for each fault of the drill, beside the one that it is of.

    python -m scripts.localize_table FOLDER [--fault NAME ...] [--record] > evals/LOCALIZE.md

Each fault is put back on the canary as the drill does it, up to the files and their verification;
what `harness localize` is given is the run directory that is left, and nothing of the drill's. The
fault of an engine stays in place while it looks, for the engine is what is broken then. The true
stage is what the catalogue says a fault strikes: files that were spoiled after they were made are
the export's. A fault that is refused before there is a run leaves nothing to be looked into. The
drill has no fault of quantization and one of a loader, so a few are planted beside it.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from harness import pipeline
from harness.artifacts import OriginStage, PlannedLinear
from harness.doors import make_anew
from harness.drill import FAULTS, DrillSetting, Fault
from harness.drill.attempt import attempt
from harness.drill.catalogue import find_fault, find_format
from harness.drill.fault import Kind
from harness.drill.making import exchanged
from harness.errors import HarnessError
from harness.formats import nvfp4
from harness.formats.nvfp4 import Nvfp4
from harness.localizing import localize
from harness.preflight import preflight
from harness.quantize.amax import WeightGroups
from harness.rundir import RECIPE_FILE
from harness.runs import run_job
from harness.serve import reference, scales
from scripts import ledger

TRUE: Mapping[Kind, OriginStage | None] = {
    Kind.RECIPE: None,
    Kind.CALIBRATION: OriginStage.CALIBRATION,
    Kind.EXPORT: OriginStage.EXPORT,
    Kind.FILE: OriginStage.EXPORT,
    Kind.ENGINE: OriginStage.LOADER,
}
"""By what a fault strikes; a recipe that is refused is of no stage."""
NO_RUN, NOTHING = "no run", "nothing"
CORRECT, PLANTED = "correct ", "planted: "
_COLUMNS = (*OriginStage, NOTHING, NO_RUN)
_INTRO = """# The localizer

What `harness localize` says of the run directory that each fault of the drill leaves on the canary.
Made by `python -m scripts.localize_table`.
"""


class Row(NamedTuple):
    """One fault, or one correct run."""

    name: str
    true: str
    named: str
    sentence: str

    @property
    def is_right(self) -> bool:
        """Return whether the stage is named that it is."""
        return self.true == self.named


def main() -> None:
    """Put the faults back, look into what they leave, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Where the runs lie; it is made anew.")
    parser.add_argument("--fault", action="append", help="Of the drill; all by default.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    make_anew(arguments.folder)
    setting = DrillSetting(folder=arguments.folder, suite="drill", engine="reference")
    names = arguments.fault or [fault.name for fault in FAULTS]
    forms = list(dict.fromkeys(find_fault(name).format for name in names))
    rows = [correct_run(setting, name) for name in forms]
    rows += [put_back(setting, name) for name in names]
    if not arguments.fault:
        rows += [plant(setting, name) for name in (*IN_MAKING, *IN_LOADING)]
    print(table(rows), end="")
    if arguments.record:
        record(rows)


def correct_run(setting: DrillSetting, name: str) -> Row:
    """Make a correct checkpoint, of which nothing may be said."""
    folder = setting.folder / "correct" / name
    job = preflight(setting.request(find_format(name)), into=folder, scored=False)
    run_job(job, into=folder, work=pipeline.make_checkpoint)
    return looked_at(f"{CORRECT}{name}", NOTHING, folder, nullcontext())


def put_back(setting: DrillSetting, name: str) -> Row:
    """Make a checkpoint with a fault in it, and look into the run."""
    fault = find_fault(name)
    run = setting.folder / "faults" / name / "first"
    run.parent.mkdir(parents=True)
    correct = setting.folder / "correct" / fault.format
    with exchanged(pipeline, "release_gate", pipeline.make_checkpoint):
        attempt(setting, fault, correct, run, off=None)
    true = TRUE[fault.kind]
    return looked_at(name, true or NO_RUN, run, _while_looking(fault))


def _swapped(weight_EOI: Tensor, scale_EOB: Tensor, scale_2_E: Tensor) -> Tensor:
    codes = _packed_codes(weight_EOI, scale_EOB, scale_2_E)
    return (codes >> 4) | (codes << 4)


def _of_an_eighth(groups: WeightGroups, planned: PlannedLinear) -> float:
    return _for_weight(groups, planned) / 8


def _without_the_six(form: Nvfp4, amax: float) -> Tensor:
    return _input_scale(form, amax) * nvfp4.E2M1_MAX


def _smaller(*given: Any) -> dict[scales.Site, Tensor]:  # noqa: ANN401 - passed on
    return {site: scale / 50 for site, scale in _merge_inputs(*given).items()}


_packed_codes, _for_weight = nvfp4.packed_codes, WeightGroups.for_weight
_input_scale, _merge_inputs = Nvfp4.input_scale, scales._merge_inputs  # noqa: SLF001 - exchanged
IN_MAKING: Mapping[str, tuple[object, str, object]] = {
    "codes packed the other way round": (nvfp4, "packed_codes", _swapped),
    "codes cut off toward zero": (nvfp4, "_BOUNDS", (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
    "weights of an eighth of their range": (WeightGroups, "for_weight", _of_an_eighth),
    "input scales of another arithmetic": (Nvfp4, "input_scale", _without_the_six),
}
"""Faults of quantization: what is exchanged while a checkpoint is made."""
IN_LOADING: Mapping[str, tuple[object, str, object]] = {
    "input scales 50 times too small": (scales, "_merge_inputs", _smaller),
    "inputs not rounded": (reference, "_input_rounding", lambda *_: lambda *_: None),
}
"""Faults of a loader: what is exchanged in the reference engine while it is looked."""


def plant(setting: DrillSetting, name: str) -> Row:
    """Make a checkpoint with a fault of quantization, or look with one of a loader."""
    making = IN_MAKING.get(name)
    run = setting.folder / "planted" / name.replace(" ", "-")
    job = preflight(setting.request(find_format("nvfp4")), into=run, scored=False)
    with exchanged(*making) if making else nullcontext():
        run_job(job, into=run, work=pipeline.make_checkpoint)
    true = OriginStage.QUANTIZATION if making else OriginStage.LOADER
    meanwhile = nullcontext() if making else exchanged(*IN_LOADING[name])
    return looked_at(f"{PLANTED}{name}", true, run, meanwhile)


def _while_looking(fault: Fault) -> AbstractContextManager[object]:
    return nullcontext() if fault.kind is not Kind.ENGINE else fault.during()  # type: ignore[union-attr]  # it is a RunFault


def looked_at(name: str, true: str, run: Path, meanwhile: AbstractContextManager[object]) -> Row:
    """Return what `harness localize` says of a run directory."""
    if not (run / RECIPE_FILE).exists():
        return Row(name, true, NO_RUN, "refused before there was a run")
    try:
        with meanwhile:
            found = localize(run)
    except HarnessError as error:
        return Row(name, true, NOTHING, f"refused: {error}")
    return Row(name, true, found.stage or NOTHING, found.sentence.replace(str(run), "RUN_DIR"))


def table(rows: Sequence[Row]) -> str:
    """Return all of it in markdown."""
    lines = [_INTRO, f"{_summary(rows)}.", "", *_confusion(rows), ""]
    lines += ["| run | true | named | what it says |", "|---|---|---|---|"]
    for row in rows:
        mark = "" if row.is_right else " **(wrong)**"
        said = row.sentence.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.name} | {row.true} | {row.named}{mark} | {said} |")
    return "\n".join(lines) + "\n"


def record(rows: Sequence[Row]) -> None:
    """Add what was named to the ledger."""
    wrong = [row.name for row in rows if not row.is_right]
    ledger.append(
        "harness localize on the drill's faults, reference engine: the stage that it names",
        command="python -m scripts.localize_table FOLDER",
        values={"result": _summary(rows), "not named right": ", ".join(wrong) or "none"},
    )


def _summary(rows: Sequence[Row]) -> str:
    faults = [row for row in rows if not row.name.startswith((CORRECT, PLANTED))]
    ran = [row for row in faults if row.named != NO_RUN]
    right = sum(row.is_right for row in ran)
    correct, planted = (
        [row for row in rows if row.name.startswith(kind)] for kind in (CORRECT, PLANTED)
    )
    good, found = (sum(row.is_right for row in some) for some in (correct, planted))
    return (
        f"{right} of {len(faults)} faults are of the stage that is named, "
        f"{len(faults) - len(ran)} of them left no run; {found} of {len(planted)} planted beside "
        f"them; of {good} of {len(correct)} correct runs nothing is said"
    )


def _confusion(rows: Iterable[Row]) -> list[str]:
    """Return how often each stage is named, by the true one."""
    counts = Counter((row.true, row.named) for row in rows)
    trues = [column for column in _COLUMNS if any(true == column for true, _ in counts)]
    lines = [
        f"| true \\ named | {' | '.join(_COLUMNS)} |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for true in trues:
        cells = (str(counts[true, named] or "") for named in _COLUMNS)
        lines.append(f"| {true} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
