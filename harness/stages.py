"""The stages of a run: what each is called, and where its noun lies in the run directory."""

from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    IntegrityReport,
    Scorecard,
    SmokeReport,
    Verdict,
)
from harness.calibrate import read_stats, write_stats
from harness.rundir import Stage

CALIBRATE = Stage(
    name="calibrate",
    file="calibration.json",
    noun=CalibrationStats,
    outputs=("calibration.safetensors",),
    read=read_stats,
    write=write_stats,
)
EXPORT = Stage(name="export", file="checkpoint.json", noun=Checkpoint, outputs=("checkpoint",))
VERIFY = Stage(name="verify", file="integrity.json", noun=IntegrityReport)
SMOKE = Stage(name="smoke", file="smoke.json", noun=SmokeReport)
SMOKE_DECLARED = Stage(name="smoke declared", file="smoke_declared.json", noun=SmokeReport)
CANDIDATE = Stage(name="score candidate", file="scorecard.json", noun=Scorecard)
BASELINE = Stage(name="score baseline", file="baseline/scorecard.json", noun=Scorecard)
JUDGE = Stage(name="judge", file="verdict.json", noun=Verdict)
GATE_STAGES = (VERIFY, SMOKE, SMOKE_DECLARED, CANDIDATE, BASELINE, JUDGE)
STAGES = (CALIBRATE, EXPORT, *GATE_STAGES)
