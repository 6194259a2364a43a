"""Ask a served model: a few prompts first, then a suite, through lm-eval, one record an item.

lm-eval takes seconds to import, and most commands ask nothing. So whatever needs it is imported
when it is first used: write `from harness import score` and `score.check_suite(...)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from harness.score.arm import read_arm

if TYPE_CHECKING:
    from harness.score.again import part_of, score_again
    from harness.score.catalog import answer_budgets, check_suite, tasks_of_likelihoods
    from harness.score.data_sets import DataSet, data_sets_of
    from harness.score.elsewhere import Answered, Elsewhere
    from harness.score.endpoint import endpoint_of
    from harness.score.finished import finished_samples
    from harness.score.lengths import cut_or_unsayable, lengths_of
    from harness.score.loading import load_data_sets
    from harness.score.mistakes import mistakes_of
    from harness.score.outline import first_specs, outlines_of, tasks_in
    from harness.score.probing import probe
    from harness.score.proof import prove_endpoint
    from harness.score.run import score
    from harness.score.same_prompts import check_same_prompts, check_same_questions

__all__ = [
    "Answered",
    "DataSet",
    "Elsewhere",
    "answer_budgets",
    "check_same_prompts",
    "check_same_questions",
    "check_suite",
    "cut_or_unsayable",
    "data_sets_of",
    "endpoint_of",
    "finished_samples",
    "first_specs",
    "lengths_of",
    "load_data_sets",
    "mistakes_of",
    "outlines_of",
    "part_of",
    "probe",
    "prove_endpoint",
    "read_arm",
    "score",
    "score_again",
    "tasks_in",
    "tasks_of_likelihoods",
]

_LATER = {
    "Answered": "elsewhere",
    "DataSet": "data_sets",
    "Elsewhere": "elsewhere",
    "answer_budgets": "catalog",
    "check_same_prompts": "same_prompts",
    "check_same_questions": "same_prompts",
    "check_suite": "catalog",
    "cut_or_unsayable": "lengths",
    "data_sets_of": "data_sets",
    "endpoint_of": "endpoint",
    "first_specs": "outline",
    "lengths_of": "lengths",
    "load_data_sets": "loading",
    "finished_samples": "finished",
    "mistakes_of": "mistakes",
    "outlines_of": "outline",
    "part_of": "again",
    "probe": "probing",
    "prove_endpoint": "proof",
    "score": "run",
    "score_again": "again",
    "tasks_in": "outline",
    "tasks_of_likelihoods": "catalog",
}
"""Module of each."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        message = f"module '{__name__}' has no attribute '{name}'"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
