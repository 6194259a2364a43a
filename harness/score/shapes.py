"""Whether the values in a task's YAML are of the kinds that lm-eval takes them for.

It takes them as they are: a text where a list belongs is gone through letter by letter. What is of
another kind is told first and alone, for nothing else about the task can be said then.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.reading import FunctionName
from harness.tasks import as_list

_TEXTS = (
    *("output_type", "dataset_path", "dataset_name", "test_split", "validation_split"),
    *("training_split", "fewshot_split", "description", "gen_prefix", "target_delimiter"),
    "fewshot_delimiter",
)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: object) -> bool:
    return all(isinstance(one, str) for one in as_list(value))


def _is_template(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_answer(value: object) -> bool:
    return all(map(_is_template, as_list(value)))


def _is_choices(value: object) -> bool:
    return isinstance(value, str | list | dict)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_examples(value: object) -> bool:
    is_list = isinstance(value, list) and all(map(_is_mapping, value))
    return is_list or isinstance(value, FunctionName)


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(_TEXTS, (_is_text, "a text")),
    **dict.fromkeys(("num_fewshot", "repeats"), (_is_number, "a number from 0 on")),
    "dataset_kwargs": (_is_mapping, "a mapping, with data_files in it"),
    "generation_kwargs": (_is_mapping, "a mapping, with until and max_gen_toks in it"),
    "fewshot_config": (_is_mapping, "a mapping, with split or samples in it"),
    "doc_to_text": (_is_template, "a template, or the name of a field"),
    "doc_to_target": (_is_answer, "a template, the name of a field, or a number"),
    "doc_to_choice": (_is_choices, "a template, the name of a field, or a list"),
    "tag": (_is_texts, "a name, or several"),
}
_WITHIN: Mapping[str, Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "generation_kwargs": {
        "until": (_is_texts, "a text, or several"),
        "max_gen_toks": (_is_number, "a number of tokens"),
    },
    "fewshot_config": {
        "split": (_is_text, "a text"),
        "samples": (_is_examples, "a list of items"),
        "doc_to_text": (_is_template, "a template"),
        "doc_to_target": (_is_answer, "a template"),
        "doc_to_choice": (_is_choices, "a template, or a list"),
    },
}


def shapes_of(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield which values of a task are of another kind than they have to be."""
    yield from _other_kinds(config, _KINDS, "")
    for key, kinds in _WITHIN.items():
        if isinstance(inside := config.get(key), Mapping):
            yield from _other_kinds(inside, kinds, f"{key}.")
    arguments = config.get("dataset_kwargs")
    files = arguments.get("data_files") if isinstance(arguments, Mapping) else None
    named = list(files.values()) if isinstance(files, Mapping) else [files]
    if not all(map(_is_texts, named)):
        yield f"has data_files: {files!r:.60}. Write 'data_files: {{test: FILE.jsonl}}'."
    yield from _entries(config, "metric_list", "- metric: NAME", _is_metric)
    yield from _entries(config, "filter_list", "- name: NAME' and 'filter: [...]", _is_filter)


def _other_kinds(
    values: Mapping[str, Any], kinds: Mapping[str, tuple[Callable[[object], bool], str]], of: str
) -> Iterator[str]:
    for key, (fits, what) in kinds.items():
        value = values.get(key)
        if value is not None and not fits(value):
            yield f"has {of}{key}: {value!r:.60}. It has to be {what}."


def _entries(
    config: Mapping[str, Any], key: str, write: str, fits: Callable[[object], bool]
) -> Iterator[str]:
    listed = config.get(key)
    if listed is not None and not isinstance(listed, list):
        yield f"has {key}: {listed!r:.60}, no list. Write '{write}'."
        return
    for entry in listed or ():
        if not fits(entry):
            yield f"has {entry!r:.60} in its {key}. Write '{write}'."


def _is_metric(entry: object) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("metric"), str):
        return False
    return isinstance(entry.get("aggregation", ""), str)


def _is_filter(entry: object) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        return False
    steps = entry.get("filter")
    return isinstance(steps, list) and all(
        isinstance(step, Mapping) and isinstance(step.get("function"), str) for step in steps
    )
