"""The nouns: frozen records that the stages hand to each other, and how they lie on disk.

Each is named once, here: pyproject.toml lets this module hand on what it imports.
"""

from harness.artifacts.algorithm import PLAIN, Algorithm, InputRanges, Rounding, Scales, Smoothing
from harness.artifacts.baseline import BaselineEntry, BaselineInputs, Change, Rerun
from harness.artifacts.calibration import (
    CalibrationStats,
    ExpertCoverage,
    ThinExperts,
    thin_experts,
)
from harness.artifacts.checkpoint import (
    Check,
    Checkpoint,
    DeclaredSize,
    IntegrityReport,
    QuantizedTensor,
    Severity,
)
from harness.artifacts.costs import (
    ArmTimes,
    LengthVerdict,
    Pace,
    PaceBlock,
    SizeVerdict,
    SpeedVerdict,
    Standing,
    StoredWeights,
)
from harness.artifacts.deployments import Address, DeploymentsTrial
from harness.artifacts.differences import (
    Cause,
    ComparedRun,
    Difference,
    FlippedItem,
    Part,
    RunDifference,
    TaskDifference,
    TensorChange,
    TensorGroup,
)
from harness.artifacts.ending import EarlyEnd, WhyEnded
from harness.artifacts.environment import (
    Environment,
    Package,
    RunSurroundings,
    Surroundings,
)
from harness.artifacts.localization import Clue, Hop, Localization, OriginStage
from harness.artifacts.nights import (
    AgainstAnchor,
    Alarm,
    AlarmCause,
    AlarmKind,
    CellEnding,
    CellWaiver,
    NightRow,
    Purpose,
    TaskNight,
)
from harness.artifacts.plan import (
    MIXED,
    Attention,
    Excluded,
    Inventory,
    Linear,
    ModuleGroup,
    Piece,
    PlannedLinear,
    QuantPlan,
    Slice,
    TensorHeader,
    TensorType,
)
from harness.artifacts.published import Plausibility, Protocol, Published
from harness.artifacts.recipe import (
    ANY_COVERAGE,
    Band,
    CalibrationSpec,
    Claim,
    CoverageSpec,
    EngineSpec,
    ExpertScales,
    KvFormat,
    Matching,
    MemorySpec,
    MissingEvidence,
    Recipe,
    Rule,
    Suite,
    TaskSpec,
    Tier,
    Trial,
    Wording,
)
from harness.artifacts.run import Failure, RunRecord
from harness.artifacts.samples import by_item, read_samples, write_samples
from harness.artifacts.scale import Scale, in_unit, mean_of
from harness.artifacts.scores import (
    DEFAULT_BUDGET,
    GO_WITH_WAIVERS,
    THOUGHTS_CUT,
    Arm,
    Decision,
    Estimate,
    Flip,
    PooledTest,
    Ratio,
    Recovery,
    Sample,
    Scorecard,
    TaskScore,
    TaskVerdict,
    Verdict,
)
from harness.artifacts.served import Deployment, Endpoint, Finding, Gap, Loaded
from harness.artifacts.sharing import ServerShare
from harness.artifacts.signoff import BundleCheck, Objection, SignOff
from harness.artifacts.smoke import (
    KLD_CHECK,
    Measure,
    Mode,
    Probe,
    Reading,
    Reply,
    SideBySide,
    SmokeReport,
)
from harness.artifacts.smoke_set import WAY_OF_ASKING, Ask, Passage, SmokeSet
from harness.artifacts.store import (
    START_AGAIN,
    MadeFrom,
    digest_of,
    load,
    made_from,
    record_digest,
    save,
    to_json,
)
from harness.artifacts.tools import NelSpec, Tool
from harness.artifacts.tuning import (
    LEFT,
    Attempt,
    Frontier,
    OptionCost,
    Point,
    Sensitivities,
    Tuning,
    UnitCosts,
)
from harness.artifacts.waivers import WaivedCheck, Waiver
from harness.doors import write_atomically
