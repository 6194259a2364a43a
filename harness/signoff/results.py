"""A verdict's scores in the two forms that the Hub reads: `.eval_results/*.yaml` and `model-index`.

The first is huggingface_hub's EvalResultEntry, one file a suite; the second stands in the model
card's front matter and is what older tools read. Values are fractions of 1, as they were measured.
"""

from collections.abc import Iterator, Mapping, Sequence

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from harness.artifacts import Suite, TaskSpec, TaskVerdict, Verdict
from harness.score.data_sets import DataSet

RESULTS_FOLDER = ".eval_results"
_TASK_TYPE = "text-generation"


def entries_of(
    verdict: Verdict, suite: Suite, data_sets: Mapping[str, DataSet], date: str
) -> list[EvalResultEntry]:
    """Return the candidate's score of each task.

    Args:
        verdict: with the scores.
        suite: that was asked.
        data_sets: of each of its tasks.
        date: of the sign-off, UTC.
    """
    return [
        EvalResultEntry(
            dataset_id=data_sets[task.task].name,
            task_id=_task_id(task, spec, data_sets[task.task]),
            value=task.candidate,
            date=date,
            notes=_notes(task, spec, data_sets[task.task]),
        )
        for task, spec in _scored(verdict, suite)
    ]


def yaml_of(entries: Sequence[EvalResultEntry]) -> str:
    """Return the text of a file in `.eval_results`."""
    values = eval_result_entries_to_yaml(list(entries))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def model_index_of(
    verdict: Verdict, suite: Suite, data_sets: Mapping[str, DataSet]
) -> list[EvalResult]:
    """Return the same scores as huggingface_hub writes them into a card's `model-index`."""
    return [
        EvalResult(
            task_type=_TASK_TYPE,
            task_name=task.task,
            dataset_type=data_sets[task.task].name,
            dataset_name=task.task,
            dataset_config=data_sets[task.task].config,
            dataset_split=data_sets[task.task].split,
            metric_type=spec.metric,
            metric_name=f"{spec.metric} ({spec.filter})",
            metric_value=task.candidate,
        )
        for task, spec in _scored(verdict, suite)
    ]


def _scored(verdict: Verdict, suite: Suite) -> Iterator[tuple[TaskVerdict, TaskSpec]]:
    specs = {spec.name: spec for spec in suite.tasks}
    for task in verdict.tasks:
        if task.candidate is not None and task.task in specs:
            yield task, specs[task.task]


def _task_id(task: TaskVerdict, spec: TaskSpec, data: DataSet) -> str:
    """Return what tells the results of one data set apart."""
    config = "" if data.config == "default" else data.config
    return task.task if spec.task else config or "default"


def _notes(task: TaskVerdict, spec: TaskSpec, data: DataSet) -> str:
    baseline = "none" if task.baseline is None else f"{task.baseline:.6g}"
    where = "" if data.is_on_hub else "; items of harness's own, not on the Hub"
    return (
        f"{spec.metric}, filter {spec.filter}, {spec.num_fewshot} worked examples, "
        f"{task.num_items} items; the unquantized model scores {baseline}; {task.tier.value}, "
        f"{task.decision.value}{where}"
    )
