"""Verdicts that need no score."""

from harness.artifacts import Decision, Trial, Verdict
from harness.errors import ExitCode, RejectedError


def reject(error: RejectedError, recipe: Trial, *, scheme: str) -> Verdict:
    """Return the NO-GO of a model or checkpoint that failed a check before it was scored."""
    return Verdict(
        decision=Decision.NO_GO,
        reason_codes=(error.reason, *error.also),
        summary=f"NO-GO: {str(error).rstrip('.')}.",
        model=recipe.model,
        scheme=scheme,
        suite=recipe.suite.name,
        tasks=(),
        flips=(),
        flip_rate=None,
        pooled_difference=None,
        scope=("nothing was scored: the run ended at a check before it",),
    )


def exit_code_of(decision: Decision) -> ExitCode:
    """Return what the process returns for a decision."""
    match decision:
        case Decision.GO:
            return ExitCode.GO
        case Decision.INCONCLUSIVE:
            return ExitCode.INCONCLUSIVE
        case Decision.NO_GO:
            return ExitCode.NO_GO
