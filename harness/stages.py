"""The stages of a run: what each is called, and where its noun lies in the run directory."""

from pathlib import Path

from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    IntegrityReport,
    Scorecard,
    SmokeReport,
    Verdict,
)
from harness.calibrate import read_stats, write_stats
from harness.models import digest_folder
from harness.rundir import Stage

CHECKPOINT_FOLDER = "checkpoint"
"""Of a checkpoint that the run makes."""
BASELINE_FOLDER = "baseline"
"""Of the baseline's arm, which is a run's arm like the candidate's."""


def _changed_checkpoint(made: Checkpoint, directory: Path) -> str | None:
    folder = directory / CHECKPOINT_FOLDER
    if not folder.is_dir():
        return f"'{folder}' is gone"
    found = digest_folder(folder)
    if found == made.digest:
        return None
    return f"'{folder}' is not what was exported: {found:.12} in place of {made.digest:.12}"


CALIBRATE = Stage(
    name="calibrate",
    file="calibration.json",
    noun=CalibrationStats,
    outputs=("calibration.safetensors",),
    read=read_stats,
    write=write_stats,
)
EXPORT = Stage(
    name="export",
    file="checkpoint.json",
    noun=Checkpoint,
    outputs=(CHECKPOINT_FOLDER,),
    changed=_changed_checkpoint,
)
VERIFY = Stage(name="verify", file="integrity.json", noun=IntegrityReport)
SMOKE = Stage(name="smoke", file="smoke.json", noun=SmokeReport)
SMOKE_DECLARED = Stage(name="smoke declared", file="smoke_declared.json", noun=SmokeReport)
CANDIDATE = Stage(name="score candidate", file="scorecard.json", noun=Scorecard)
BASELINE = Stage(name="score baseline", file=f"{BASELINE_FOLDER}/scorecard.json", noun=Scorecard)
JUDGE = Stage(name="judge", file="verdict.json", noun=Verdict)
GATE_STAGES = (VERIFY, SMOKE, SMOKE_DECLARED, CANDIDATE, BASELINE, JUDGE)
STAGES = (CALIBRATE, EXPORT, *GATE_STAGES)
