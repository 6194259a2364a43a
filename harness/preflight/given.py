"""What `--baseline` names: a model, a run directory, a folder of scores, or a bundle.

A baseline is proven before anything runs: it is unquantized, of the candidate's architecture, not
the candidate itself, and what the store or a bundle holds of it is whole.
"""

from harness.artifacts import Trial
from harness.baselines import ScoredArm, check_kept, find_scored, inputs_of, refuse_stale
from harness.errors import BaselineError
from harness.models import Source, architecture_of, difference, refuse_ambiguous
from harness.preflight.unquantized import open_unquantized

Baseline = Source | ScoredArm
"""A model that is measured where the store does not have it, or scores that exist."""


def open_baseline(named: str, *, revision: str | None = None) -> Baseline:
    """Open what `--baseline` names.

    Raises:
        UsageError: it is nothing that can be compared with, or is quantized.
    """
    refuse_ambiguous(named)
    scored = find_scored(named)
    if scored is not None:
        return scored
    return open_unquantized(named, revision)


def check_baseline(baseline: Baseline, source: Source, trial: Trial, *, is_its_model: bool) -> None:
    """Refuse what is no baseline of this run's checkpoint.

    Args:
        baseline: what is compared with.
        source: the model that is quantized, or the checkpoint that was.
        trial: how it is scored, with the engine resolved.
        is_its_model: whether scores must be of `source`; a checkpoint that was made elsewhere does
            not say which model it was made from.

    Raises:
        BaselineError: with what is wrong.
    """
    _refuse_itself(baseline, source, is_its_model=is_its_model)
    _refuse_other_architecture(baseline, source)
    if isinstance(baseline, ScoredArm):
        now = inputs_of(source, trial.engine, trial.suite)
        refuse_stale(baseline, now, knows_model=is_its_model, smoke=trial.suite.smoke)
    else:
        check_kept(inputs_of(baseline, trial.engine, trial.suite))


def _refuse_itself(baseline: Baseline, source: Source, *, is_its_model: bool) -> None:
    if baseline.model_digest == source.digest and not is_its_model:
        message = (
            f"the baseline is the candidate itself: the files of '{source.name}' have the digest "
            f"{source.digest:.12}. Name the unquantized model with --baseline."
        )
        raise BaselineError(message)


def _refuse_other_architecture(baseline: Baseline, source: Source) -> None:
    if isinstance(baseline, ScoredArm):
        theirs = baseline.entry.inputs.architecture
    else:
        theirs = architecture_of(baseline.config)
    found = difference(theirs, architecture_of(source.config))
    if found is not None:
        message = (
            f"the baseline '{baseline.path}' is of another architecture than '{source.name}': "
            f"{found}. Name the model that it was made from with --baseline."
        )
        raise BaselineError(message)
