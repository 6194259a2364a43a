"""Everything known about a run, for its report; what did not happen is None."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.artifacts.calibration import CalibrationStats
from harness.artifacts.checkpoint import Checkpoint, IntegrityReport
from harness.artifacts.plan import QuantPlan
from harness.artifacts.recipe import Recipe, Trial
from harness.artifacts.scores import Scorecard, Verdict
from harness.artifacts.served import Deployment
from harness.artifacts.smoke import SmokeReport
from harness.errors import ReasonCode


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A stage that did not finish."""

    stage: str
    message: str
    reason_code: ReasonCode
    retryable: bool
    exit_code: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run, as far as it got."""

    recipe: Recipe | Trial
    """A Recipe where the run made the checkpoint, else what it was gated with."""
    versions: Mapping[str, str]
    """Of harness and of the packages that change numbers."""
    plan: QuantPlan | None = None
    stats: CalibrationStats | None = None
    checkpoint: Checkpoint | None = None
    integrity: IntegrityReport | None = None
    deployment: Deployment | None = None
    """Of the candidate; there even where nothing was scored."""
    smoke: SmokeReport | None = None
    smoke_declared: SmokeReport | None = None
    """Of the declared numerics, where the deployed kernels hide a part of them."""
    baseline: Scorecard | None = None
    candidate: Scorecard | None = None
    verdict: Verdict | None = None
    failure: Failure | None = None
    stage_seconds: Mapping[str, float]
    """Wall-clock time of each stage that was run this time."""
    serve_command: str | None = None
    """The line that deploys the checkpoint as it was judged."""
