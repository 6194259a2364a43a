"""The nouns: frozen records that the stages hand to each other, and how they lie on disk."""

from harness.artifacts.calibration import CalibrationStats, ExpertCoverage
from harness.artifacts.checkpoint import (
    Check,
    Checkpoint,
    IntegrityReport,
    QuantizedTensor,
    Severity,
)
from harness.artifacts.plan import (
    Attention,
    Excluded,
    Inventory,
    Linear,
    PlannedLinear,
    QuantPlan,
    Slice,
    TensorHeader,
)
from harness.artifacts.recipe import (
    CalibrationSpec,
    EngineSpec,
    KvFormat,
    Recipe,
    Rule,
    Suite,
    TaskSpec,
    Tier,
)
from harness.artifacts.run import Failure, RunRecord
from harness.artifacts.samples import read_samples, write_samples
from harness.artifacts.scores import (
    Arm,
    Decision,
    Deployment,
    Flip,
    Sample,
    Scorecard,
    TaskScore,
    TaskVerdict,
    Verdict,
)
from harness.artifacts.store import digest_of, load, made_from, save, to_json, write_atomically

__all__ = [
    "Arm",
    "Attention",
    "CalibrationSpec",
    "CalibrationStats",
    "Check",
    "Checkpoint",
    "Decision",
    "Deployment",
    "EngineSpec",
    "Excluded",
    "ExpertCoverage",
    "Failure",
    "Flip",
    "IntegrityReport",
    "Inventory",
    "KvFormat",
    "Linear",
    "PlannedLinear",
    "QuantPlan",
    "QuantizedTensor",
    "Recipe",
    "Rule",
    "RunRecord",
    "Sample",
    "Scorecard",
    "Severity",
    "Slice",
    "Suite",
    "TaskScore",
    "TaskSpec",
    "TaskVerdict",
    "TensorHeader",
    "Tier",
    "Verdict",
    "digest_of",
    "load",
    "made_from",
    "read_samples",
    "save",
    "to_json",
    "write_atomically",
    "write_samples",
]
