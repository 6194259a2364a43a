"""What `--baseline` names: a model, a run directory, a folder of scores, or a bundle."""

from harness.artifacts import Trial
from harness.baselines import ScoredArm, find_scored, inputs_of, refuse_stale
from harness.models import Source, open_source

Baseline = Source | ScoredArm
"""A model that is measured where the store does not have it, or scores that exist."""


def open_baseline(named: str, *, revision: str | None = None) -> Baseline:
    """Open what `--baseline` names.

    Raises:
        UsageError: it is nothing that can be compared with.
    """
    return find_scored(named) or open_source(named, revision=revision)


def check_fresh(baseline: Baseline, source: Source, trial: Trial, *, is_its_model: bool) -> None:
    """Refuse scores that this run would not make again.

    Args:
        baseline: what is compared with.
        source: the model that is quantized, or the checkpoint that was.
        trial: how it is scored, with the engine resolved.
        is_its_model: whether the baseline must be of `source`; a checkpoint that was made
            elsewhere does not say which model it was made from.

    Raises:
        BaselineError: with what changed.
    """
    if isinstance(baseline, ScoredArm):
        now = inputs_of(source, trial.engine, trial.suite)
        refuse_stale(baseline, now, knows_model=is_its_model, smoke=trial.suite.smoke)
