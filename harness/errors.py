"""Every way a run can end without GO, and the exit code of each.

* HarnessError                 one clear line, no traceback
  + UsageError            2    wrong usage, recipe, input or prerequisite; nothing ran
    - RecipeError              a recipe or a rule in it
    - ModelError               the model's files
    - DataError                the calibration data
    - SuiteError               the suite, its tasks or its margins
    - PrerequisiteError        this machine lacks something
    - RunDirectoryError        the run directory is in use, or is not one
    - IncomparableError        two arms that may not be compared
    - BaselineError            a baseline that is damaged, missing or stale
    - WaiverError              the file of waivers
    - MatrixError              the matrix of a nightly
    - UnreadableError          a file or a text that breaks its format or a bound
  + StageError            3    a stage failed; the run directory can be resumed
    - CorruptWeightError       a weight that holds NaN or infinity, or a file that ends early
    - DiskFullError            no space left while writing
    - EvidenceError            files were exchanged or changed while the run looked at them
    - SystemRefusedError       the operating system refused a file in the midst of a run
    - EngineError              the server or the model in it failed
    - ScoringError             lm-eval failed, or its answers are incomplete
    - UploadError              a Hub refused what was to be published
  + RejectedError         4    the model or its checkpoint failed a check: NO-GO without a score

A failed comparison is no exception: it is a Verdict.
"""

from enum import IntEnum, StrEnum
from functools import partial
from pathlib import Path
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process returns; scripts rely on these numbers."""

    GO = 0
    BUG = 1
    USAGE = 2
    STAGE_FAILED = 3
    NO_GO = 4
    INCONCLUSIVE = 5
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class ReasonCode(StrEnum):
    """Stable names for why a run ended as it did; this is the only list of them."""

    NON_INFERIOR = "non-inferior"
    """Every critical task is proven to be within its margin."""
    TASK_INFERIOR = "task-inferior"
    """A critical task is proven to have lost more than its margin."""
    NOT_ENOUGH_EVIDENCE = "not-enough-evidence"
    """The interval of a critical task's difference reaches past its margin on both sides."""
    SCORE_MISSING = "score-missing"
    """A critical task has no score, or fewer answers than the suite asks for."""
    ENDED_EARLY = "ended-early"
    """Not all of a critical task was asked, for the candidate was known not to be GO."""
    REQUEST_ERRORS = "request-errors"
    """Requests failed, so that some answers are unknown."""
    TRUNCATED_ANSWERS = "truncated-answers"
    """More answers hit the output budget than the suite tolerates."""
    BASELINE_TOO_WEAK = "baseline-too-weak"
    """The baseline answers no better than chance, so that a comparison shows nothing."""
    BASELINE_UNLIKE_PUBLISHED = "baseline-unlike-published"
    """The baseline scores otherwise than is published of it: it was asked in another way."""
    CLAIM_REFUTED = "claim-refuted"
    """A critical task that is claimed to be lossless is significantly worse."""
    TRUNCATION_RISE = "truncation-rise"
    """Significantly more answers of the candidate than of the baseline hit the output budget."""
    EMPTY_RISE = "empty-rise"
    """Significantly more answers of the candidate than of the baseline are empty."""
    ANSWERS_LONGER = "answers-longer"
    """The candidate's answers are proven to be longer than the band allows: a warning, unless the
    suite calls length critical."""
    ANSWERS_SHORTER = "answers-shorter"
    """The same of answers that are shorter."""
    ANSWERS_SLOWER = "answers-slower"
    """The candidate is proven to give fewer tokens a second than the band allows: a warning, unless
    the suite calls speed critical."""
    POOLED_ALARM = "pooled-alarm"
    """Over all items of all tasks the candidate is worse: a warning, unless the suite has a
    pooled margin."""
    WAIVED = "waived"
    """A check failed, and a reviewed waiver answers for it; everything else is proven."""
    VERIFY_SKIPPED = "verify-skipped"
    """The run was told not to verify the checkpoint; it can never end GO."""
    NUMERICS_NOT_EXERCISED = "numerics-not-exercised"
    """The checkpoint declares arithmetic that the deployment did not compute."""
    LOAD_NOT_RECONCILED = "load-not-reconciled"
    """What the engine loaded could not be held against the files."""
    KERNELS_UNKNOWN = "kernels-unknown"
    """The engine did not tell which kernels it chose."""
    ENDINGS_UNKNOWN = "endings-unknown"
    """The records of another tool do not say which prompts or answers were cut."""
    ENGINE_UNTESTED = "engine-untested"
    """Harness was not tested with this version of the engine; a remark, which decides nothing."""
    SMOKE_FAILED = "smoke-failed"
    """Before scoring, the candidate answered or read a few texts otherwise than the baseline."""
    NO_EXPERT_OBSERVED = "no-expert-observed"
    """Calibration saw no token reach any expert of a layer."""
    LOW_COVERAGE = "low-coverage"
    """Calibration showed too few tokens to more experts than the recipe allows."""
    QUANTIZER_NOT_OBSERVED = "quantizer-not-observed"
    """Calibration never saw the input of a layer that is to be quantized."""
    UNUSABLE_RANGE = "unusable-range"
    """Calibration saw only zeros, or NaN or infinity, of which no scale can be made."""
    INTEGRITY_FAILED = "integrity-failed"
    """The checkpoint's files contradict themselves or each other."""
    SIZE_NOT_REDUCED = "size-not-reduced"
    """The checkpoint's files are hardly smaller than the baseline's, which its format promises."""
    SCALE_MISSING = "scale-missing"
    """The engine met a quantized layer without one of its scales."""
    SCALE_MISMATCH = "scale-mismatch"
    """Layers that the engine runs as one have scales that differ, and it took one of them."""
    LOAD_MISMATCH = "load-mismatch"
    """The engine left a parameter unfilled, or a tensor of the files untaken."""
    NON_FINITE_WEIGHT = "non-finite-weight"
    """A weight of the source model is NaN or infinite."""
    TRUNCATED_FILE = "truncated-file"
    """A safetensors file is shorter than its header says."""
    DISK_FULL = "disk-full"
    """No space was left while writing."""
    SYSTEM_REFUSED = "system-refused"
    """The operating system refused to read or write a file in the midst of a run."""
    OUT_OF_MEMORY = "out-of-memory"
    """The device or the host had no memory left."""
    ENGINE_FAILED = "engine-failed"
    """The engine could not load or run the checkpoint."""
    SCORING_FAILED = "scoring-failed"
    """lm-eval failed."""
    READ_BACK_MISMATCH = "read-back-mismatch"
    """What was written differs from what was meant."""
    BAD_USAGE = "bad-usage"
    """An argument is wrong."""
    BAD_RECIPE = "bad-recipe"
    """The recipe, or a rule in it, is wrong."""
    RULE_MATCHES_NOTHING = "rule-matches-nothing"
    """A rule of the recipe matches no quantizer of the model."""
    RULE_MATCHES_SOME_EXPERTS = "rule-matches-some-experts"
    """A rule of the recipe matches some experts of a layer and not others."""
    BAD_MODEL = "bad-model"
    """The model is unknown, or its files are no checkpoint that can be read."""
    BAD_CALIBRATION_DATA = "bad-calibration-data"
    """The calibration data is missing, empty or malformed."""
    BAD_SUITE = "bad-suite"
    """The suite names a task that does not exist, or is malformed."""
    MARGIN_UNREACHABLE = "margin-unreachable"
    """A margin is too tight for the number of items: no candidate could get GO."""
    PREREQUISITE_MISSING = "prerequisite-missing"
    """This machine lacks something that a later stage needs."""
    UNSUPPORTED_FORMAT = "unsupported-format"
    """The engine cannot load this format on this machine."""
    BAD_BASELINE = "bad-baseline"
    """A bundle of a baseline is damaged, or the store has no such baseline."""
    STALE_BASELINE = "stale-baseline"
    """The baseline was made from something else than this run compares with."""
    BAD_MATRIX = "bad-matrix"
    """The matrix of a nightly is malformed, or names what is not there."""
    BAD_WAIVERS = "bad-waivers"
    """The file of waivers is malformed, expired, or waives what is no check."""
    UNREADABLE = "unreadable"
    """A file or a text from elsewhere breaks its format, or is larger or deeper than any such."""
    RUN_DIRECTORY_BUSY = "run-directory-busy"
    """Another run works in this directory."""
    EVIDENCE_CHANGED = "evidence-changed"
    """A record or a file of the run is not the one that was written, verified, served or scored."""
    NOT_SIGNED_OFF = "not-signed-off"
    """Something stands against a release, or what is there is not what was signed off."""
    UPLOAD_FAILED = "upload-failed"
    """A Hub did not take what was to be published."""
    INTERRUPTED = "interrupted"
    """The run was ended from outside, or has not come to its end."""
    INTERNAL_ERROR = "internal-error"
    """A bug in harness; its traceback is on stderr."""
    INCOMPARABLE = "incomparable"
    """The two arms did not answer the same questions under the same conditions."""


class HarnessError(Exception):
    """An ending that is not a bug: prints one line and returns `exit_code`."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG
    retryable: ClassVar[bool] = False
    default_reason: ClassVar[ReasonCode] = ReasonCode.BAD_USAGE

    def __init__(self, message: str, *, reason: ReasonCode | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason


class UsageError(HarnessError):
    """Wrong usage, recipe, input or prerequisite; nothing ran and nothing was written."""

    exit_code = ExitCode.USAGE


class RecipeError(UsageError):
    """A recipe, or a rule in it, is wrong or does not fit the model."""

    default_reason = ReasonCode.BAD_RECIPE


class ModelError(UsageError):
    """The model cannot be found or its files cannot be read as a checkpoint."""

    default_reason = ReasonCode.BAD_MODEL


class DataError(UsageError):
    """The calibration data is missing, empty or malformed."""

    default_reason = ReasonCode.BAD_CALIBRATION_DATA


class SuiteError(UsageError):
    """The suite is malformed, names an unknown task, or has a margin that cannot be met."""

    default_reason = ReasonCode.BAD_SUITE


class PrerequisiteError(UsageError):
    """This machine lacks something that a stage needs."""

    default_reason = ReasonCode.PREREQUISITE_MISSING


class RunDirectoryError(UsageError):
    """The run directory is in use by another run, or holds something else."""

    default_reason = ReasonCode.RUN_DIRECTORY_BUSY


class IncomparableError(UsageError):
    """Two scorecards that may not be compared, with the difference named."""

    default_reason = ReasonCode.INCOMPARABLE


class BaselineError(UsageError):
    """A kept baseline cannot be read, is not there, or does not fit this run."""

    default_reason = ReasonCode.BAD_BASELINE


class WaiverError(UsageError):
    """The file of waivers is malformed, or one in it can never apply."""

    default_reason = ReasonCode.BAD_WAIVERS


class MatrixError(UsageError):
    """The matrix of a nightly is malformed, or has no such cell."""

    default_reason = ReasonCode.BAD_MATRIX


class UnreadableError(UsageError):
    """A file or a text from elsewhere breaks its format or a bound (harness/reading)."""

    default_reason = ReasonCode.UNREADABLE

    def __init__(self, where: str | Path, why: str, *, reason: ReasonCode | None = None) -> None:
        place = f"'{where}'" if isinstance(where, Path) else where
        super().__init__(f"{place} {why}.", reason=reason)
        self.where = where
        self.why = why
        """What is wrong, without the place, as the end of a sentence."""

    def __reduce__(self) -> tuple[object, ...]:
        """Cross to another process, which Python does with one argument only."""
        return partial(UnreadableError, reason=self.reason), (self.where, self.why)


class StageError(HarnessError):
    """A stage failed; typing the command again resumes the run."""

    exit_code = ExitCode.STAGE_FAILED


class CorruptWeightError(StageError):
    """A source weight holds NaN or infinity, or its file ends early."""

    default_reason = ReasonCode.NON_FINITE_WEIGHT


class DiskFullError(StageError):
    """No space was left while writing."""

    retryable = True
    default_reason = ReasonCode.DISK_FULL


class EvidenceError(StageError):
    """Two stages did not look at the same files."""

    retryable = True
    default_reason = ReasonCode.EVIDENCE_CHANGED


class SystemRefusedError(StageError):
    """The operating system refused to read or write a file in the midst of a run."""

    retryable = True
    default_reason = ReasonCode.SYSTEM_REFUSED


class EngineError(StageError):
    """The engine could not load or run the checkpoint."""

    retryable = True
    default_reason = ReasonCode.ENGINE_FAILED


class ScoringError(StageError):
    """lm-eval failed, or its answers are incomplete."""

    retryable = True
    default_reason = ReasonCode.SCORING_FAILED


class UploadError(StageError):
    """A Hub refused what was to be published, or could not be reached."""

    retryable = True
    default_reason = ReasonCode.UPLOAD_FAILED


class RejectedError(HarnessError):
    """The model or its checkpoint failed a check before it could be scored: NO-GO."""

    exit_code = ExitCode.NO_GO
    default_reason = ReasonCode.INTEGRITY_FAILED

    def __init__(
        self, message: str, *, reason: ReasonCode | None = None, checks: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, reason=reason)
        self.checks = checks
        """Ids of the checks that failed, where a waiver could answer for them."""
        self.also: tuple[ReasonCode, ...] = ()
        """Further reasons, which would have ended the run by themselves."""
