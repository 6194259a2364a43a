"""How a cell ended, by what its run directory says; only a GO that nothing contradicts is one.

A run that failed has one reason (harness.errors.ReasonCode) and the stage in which it was met. What
a reason is about decides: the machine, what was typed, the baseline, or one of the two arms. All of
them stand here, and a test says so. A verdict decides by itself, unless both arms failed alike:
then it says nothing of the candidate.
"""

from collections.abc import Iterable
from enum import Enum

from harness.artifacts import Decision, Failure, RunRecord, Scorecard, TaskVerdict, Verdict
from harness.artifacts.nights import CellEnding
from harness.errors import ExitCode, ReasonCode
from harness.stages import BASELINE


class About(Enum):
    """What a reason is about."""

    MACHINE = "the machine, its disk, memory, devices, or whoever ended the run"
    ORDER = "what was typed: a recipe, a suite, a file that is named"
    BASELINE = "what the candidate would be compared with"
    ORIGIN = "the unquantized model's files, which both arms are made from"
    ARM = "the arm that was at work: its files, or the engine with them"
    RELEASE = "what is done with a run that has ended, which no run's failure has"
    ANSWERS = "a verdict's own, which no failure has"


_REASONS: dict[About, str] = {
    About.MACHINE: """
        disk-full system-refused out-of-memory prerequisite-missing evidence-changed interrupted
        internal-error
    """,
    About.ORDER: """
        bad-usage bad-recipe rule-matches-nothing rule-matches-some-experts bad-model
        bad-calibration-data bad-suite margin-unreachable unsupported-format bad-waivers bad-matrix
        unreadable run-directory-busy
    """,
    About.BASELINE: "bad-baseline stale-baseline incomparable",
    About.ORIGIN: "non-finite-weight truncated-file",
    About.ARM: """
        engine-failed scoring-failed read-back-mismatch integrity-failed size-not-reduced
        scale-missing scale-mismatch load-mismatch smoke-failed no-expert-observed low-coverage
        quantizer-not-observed unusable-range
    """,
    About.RELEASE: "not-signed-off upload-failed",
    About.ANSWERS: """
        non-inferior task-inferior not-enough-evidence score-missing ended-early request-errors
        truncated-answers baseline-too-weak baseline-unlike-published claim-refuted truncation-rise
        empty-rise answers-longer answers-shorter answers-slower pooled-alarm waived verify-skipped
        numerics-not-exercised load-not-reconciled kernels-unknown endings-unknown engine-untested
    """,
}
ABOUT = {ReasonCode(value): about for about, text in _REASONS.items() for value in text.split()}
"""What each reason is about."""
_OF_DECISION = {
    Decision.GO: CellEnding.GO,
    Decision.NO_GO: CellEnding.NO_GO,
    Decision.INCONCLUSIVE: CellEnding.INCONCLUSIVE,
}


def ending_of(record: RunRecord, exit_code: int | None) -> tuple[CellEnding, str]:
    """Return how the run of a cell ended, and why, as one line.

    Args:
        record: what its run directory holds.
        exit_code: of its process; None where none is known.
    """
    if record.failure is not None:
        return of_failure(record.failure), record.failure.message
    if record.verdict is None:
        return CellEnding.INFRA_FAILED, f"it has not come to its end{_exited(exit_code)}"
    alike = _failed_alike(record.verdict, record.baseline, record.candidate)
    if alike:
        return CellEnding.BOTH_ARMS_FAILED, alike
    ending = _OF_DECISION[record.verdict.decision]
    if ending is CellEnding.GO and exit_code not in (None, ExitCode.GO):
        why = f"its run directory says {record.verdict.title}, and its process did not"
        return CellEnding.INFRA_FAILED, f"{why}{_exited(exit_code)}"
    return ending, record.verdict.summary


def of_failure(failure: Failure) -> CellEnding:
    """Return how a run ended that failed."""
    about = ABOUT[failure.reason_code]
    is_baseline = failure.stage == BASELINE.name
    match about:
        case About.BASELINE:
            return CellEnding.NO_BASELINE
        case About.ORIGIN:
            return CellEnding.BOTH_ARMS_FAILED
        case About.ORDER | About.ARM if is_baseline:
            return CellEnding.NO_BASELINE
        case About.ORDER:
            # In the midst of a run it is no refusal: something broke on the way.
            refused = failure.exit_code == ExitCode.USAGE
            return CellEnding.NOT_RUN if refused else CellEnding.INFRA_FAILED
        case _:
            return CellEnding.INFRA_FAILED


def of_no_run(exit_code: int | None) -> tuple[CellEnding, str]:
    """Return how a cell ended that left no run directory, and why, as one line."""
    if exit_code is None:
        return CellEnding.NOT_RUN, "it was not started"
    if exit_code == ExitCode.USAGE:
        return CellEnding.NOT_RUN, "it was refused before anything ran"
    return CellEnding.INFRA_FAILED, f"it left no run directory{_exited(exit_code)}"


def _exited(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    how = f"by signal {-exit_code}" if exit_code < 0 else f"with exit code {exit_code}"
    return f": the process ended {how}"


def _failed_alike(verdict: Verdict, baseline: Scorecard | None, candidate: Scorecard | None) -> str:
    """Return which tasks show nothing because neither arm answered; empty where there is none.

    Only where that is what the verdict rests on: a loss that is proven on another task stays one.
    """
    if verdict.decision is not Decision.INCONCLUSIVE:
        return ""
    silent = [t.task for t in verdict.tasks if _is_silent(t, (baseline, candidate))]
    weak = [t.task for t in verdict.tasks if _is_weak(t)]
    reasons = {
        ReasonCode.BASELINE_TOO_WEAK: (weak, "both arms answer no better than chance"),
        ReasonCode.REQUEST_ERRORS: (silent, "neither arm answered a request"),
        ReasonCode.SCORE_MISSING: (silent, "neither arm answered a request"),
    }
    tasks, why = reasons.get(verdict.reason_codes[0], ([], ""))
    return f"{why}: {', '.join(tasks)}" if tasks else ""


def _is_weak(task: TaskVerdict) -> bool:
    """Return whether the baseline is at chance, and the candidate not shown to be better."""
    return task.reason is ReasonCode.BASELINE_TOO_WEAK and (task.low is None or task.low <= 0)


def _is_silent(task: TaskVerdict, cards: Iterable[Scorecard | None]) -> bool:
    """Return whether no request of a task was answered in either arm."""
    found = [s for card in cards if card for s in card.tasks if s.task == task.task]
    return task.num_items == 0 and all(s.num_errors >= s.num_answers for s in found)
