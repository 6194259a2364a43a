"""What shaped lm-eval's answers and their scores, as its results say it: equal in both arms.

The names of what our own scores record too (`num_fewshot`, `generation`, `output_type`,
`apply_chat_template`) are theirs, so that an arm of lm-eval's can be compared with one of ours.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of a function, in a task's definition as it is printed."""
_OF_RUN = {
    "system_instruction": "the system's instruction",
    "fewshot_as_multiturn": "fewshot_as_multiturn",
    "chat_template_sha": "the chat template's hash",
    "tokenizer_pad_token": "the tokenizer's pad token",
    "tokenizer_eos_token": "the tokenizer's end token",
    "tokenizer_bos_token": "the tokenizer's first token",
    "eot_token_id": "the tokenizer's end of text",
    "max_length": "the longest text (max_length)",
}
_SEEDS = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
_OF_TASK = (
    *("repeats", "doc_to_text", "doc_to_target", "doc_to_choice", "description"),
    *("target_delimiter", "fewshot_delimiter", "process_results", "metric_list", "filter_list"),
    *("dataset_name", "test_split", "fewshot_split", "gen_prefix"),
)
TOOL_VERSION = "lm-eval's version"


def conditions_of(
    values: Mapping[str, Any], task: str, config: Mapping[str, Any], asked: Sequence[str]
) -> dict[str, object]:
    """Return what must be the same for both arms of a task.

    Args:
        values: a file of results.
        task: name of one in it.
        config: the task's definition in it.
        asked: the generation arguments that its samples were sent with.
    """
    run = values.get("config")
    run = run if isinstance(run, dict) else {}
    shots = values.get("n-shot")
    versions = values.get("versions")
    found: dict[str, object] = {
        TOOL_VERSION: values.get("lm_eval_version"),
        "the task's version": versions.get(task) if isinstance(versions, dict) else None,
        "num_fewshot": shots.get(task) if isinstance(shots, dict) else config.get("num_fewshot"),
        "output_type": config.get("output_type"),
        "generation": config.get("generation_kwargs") or {},
        "the generation arguments sent": list(asked),
        "apply_chat_template": values.get("chat_template_sha") is not None,
    }
    found |= {name: values.get(key) for key, name in _OF_RUN.items()}
    found |= {name: run.get(name) for name in _SEEDS}
    found["which way metrics run (higher_is_better)"] = directions_of(values, task, config)
    return found | {name: _plain(config.get(name)) for name in _OF_TASK}


def directions_of(
    values: Mapping[str, Any], task: str, config: Mapping[str, Any]
) -> dict[str, bool]:
    """Return whether more is better of each metric of a task, where lm-eval says it.

    Args:
        values: a file of results, which says it of every metric that was computed.
        task: name of one in it.
        config: the task's definition in it, which says it of the metrics that it lists.
    """
    listed = config.get("metric_list")
    said = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    of_tasks = values.get("higher_is_better")
    of_task = of_tasks.get(task) if isinstance(of_tasks, dict) else None
    found = [(str(one.get("metric")), one.get("higher_is_better")) for one in said]
    found += of_task.items() if isinstance(of_task, dict) else ()
    return {name: up for name, up in found if isinstance(up, bool)}


def _plain(value: object) -> object:
    """Leave out of a definition where in memory its functions were."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return _ADDRESS.sub("", value) if isinstance(value, str) else value
