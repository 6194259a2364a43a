"""What is wrong with an own task's YAML, told before any of its items is looked at.

lm-eval finds these one at a time, many of them only when the task is asked, and some never: an
undefined metric is looked for on the Hub, where code may be. Its own tasks are taken as they are.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from lm_eval.api.registry import AGGREGATION_REGISTRY, FILTER_REGISTRY, METRIC_REGISTRY
from lm_eval.config.task import TaskConfig

from harness.artifacts import TaskSpec
from harness.reading import FunctionName
from harness.score.shapes import shapes_of
from harness.score.templating import templates
from harness.tasks import BUILDERS, Definition, is_there, refusals_of

TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
_KEYS = frozenset(field.name for field in dataclasses.fields(TaskConfig)) | {"task_list", "class"}
_CALLED = ("process_docs", "process_results", "custom_dataset")
"""What can only be a function."""
_UNSUPPORTED = {
    "doc_to_image": "images",
    "doc_to_audio": "sounds",
}
_OF_THE_HUB = ("data_files", "data_dir", "revision", "verification_mode", "header", "column_names")
_IN_THE_DATA_SET = re.compile(r"[^/:][^:]*")
"""With a colon it is an address; some ('reference::') are read with templates of their own."""
_HUB_NAME = re.compile(r"[\w-]+(\.[\w-]+)*(/[\w-]+(\.[\w-]+)*)?")


def refusals_to_load(definition: Definition, *, task_code: bool) -> Iterator[str]:
    """Yield why a task or group is not loaded: lm-eval would run Python, or fetch it, as it is.

    Args:
        definition: of the task or group.
        task_code: whether its own Python may run; Python of the Hub never does.
    """
    yield from refusals_of(definition, task_code=task_code)
    if definition.is_group:
        return
    shapes = list(shapes_of(definition.config))
    yield from shapes or _code_elsewhere(definition.config)
    yield from () if shapes else _data(definition)


def mistakes_of_definition(
    definition: Definition, spec: TaskSpec, *, task_code: bool
) -> Iterator[str]:
    """Yield what is wrong with a task's file, a line each, with what to do.

    Args:
        definition: of the task.
        spec: what the suite asks of it.
        task_code: whether its Python may run.
    """
    config = definition.config
    who = f"task '{definition.name}' ('{definition.file}')"
    shapes = [f"{who} {what}" for what in shapes_of(config)]
    yield from shapes
    if shapes:
        return
    checks = (
        refusals_to_load(definition, task_code=task_code),
        _called(config),
        _keys(config),
        _templates(config),
        _aggregations(config),
        _filters(config),
        _splits(definition, spec),
    )
    for check in checks:
        for what in check:
            yield f"{who} {what}"


def _called(config: Mapping[str, Any]) -> Iterator[str]:
    for key in _CALLED:
        value = config.get(key)
        if isinstance(value, str) and not isinstance(value, FunctionName):
            yield f"has {key}: {value}, a text. Write {key}: !function {value}."


def _code_elsewhere(config: Mapping[str, Any]) -> Iterator[str]:
    arguments = config.get("dataset_kwargs")
    if isinstance(arguments, Mapping) and arguments.get("trust_remote_code"):
        yield "asks to run the data set's own code (trust_remote_code). Take the line out."
    if config.get("use_prompt"):
        yield "asks for a prompt of promptsource (use_prompt). Write it as doc_to_text."
    for entry in config.get("metric_list") or ():
        name = entry["metric"]
        if entry.get("hf_evaluate"):
            yield f"takes the metric '{name}' from the Hub, where it is code. Use lm-eval's own."
        elif not _is_known(name, METRIC_REGISTRY) and config.get("process_results") is None:
            yield f"has the metric '{name}', which lm-eval has not.{_near(name, METRIC_REGISTRY)}"


def _keys(config: Mapping[str, Any]) -> Iterator[str]:
    for key in config:
        if key not in _KEYS:
            yield f"has the key '{key}', which lm-eval does not know.{_near(key, _KEYS)}"
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            yield f"asks for {what} ({key}), which harness does not. Use a task of text."
    if not config.get("use_prompt"):
        yield from _lacking(config)


def _lacking(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("doc_to_text", "doc_to_target"):
        if config.get(key) is None and config.get("output_type") != "loglikelihood_rolling":
            yield f"has no {key}. Write the template of its {_MEANT[key]}."
    if config.get("output_type") == "multiple_choice" and config.get("doc_to_choice") is None:
        yield "is multiple choice and has no doc_to_choice. Write the template of the choices."


_MEANT = {"doc_to_text": "prompts", "doc_to_target": "answers"}


def _templates(config: Mapping[str, Any]) -> Iterator[str]:
    for key in TEMPLATES:
        text = config.get(key)
        if not isinstance(text, str) or isinstance(text, FunctionName):
            continue
        try:
            templates().parse(text)
        except jinja2.TemplateSyntaxError as error:
            yield (
                f"has a {key} that is no Jinja template: {error.message}, in its line "
                f"{error.lineno}. Mend the template."
            )


def _aggregations(config: Mapping[str, Any]) -> Iterator[str]:
    for entry in config.get("metric_list") or ():
        aggregation = entry.get("aggregation")
        if aggregation is not None and not _is_known(aggregation, AGGREGATION_REGISTRY):
            near = _near(aggregation, AGGREGATION_REGISTRY)
            yield f"has the aggregation '{aggregation}', which lm-eval has not.{near}"


def _filters(config: Mapping[str, Any]) -> Iterator[str]:
    for entry in config.get("filter_list") or ():
        for step in entry["filter"]:
            name = step["function"]
            if not _is_known(name, FILTER_REGISTRY):
                near = _near(name, FILTER_REGISTRY)
                yield f"has the filter function '{name}', which lm-eval has not.{near}"
            elif not isinstance(name, FunctionName):
                yield from _arguments(str(entry["name"]), step)


def _arguments(name: str, step: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a filter cannot be made, which lm-eval does when all is answered."""
    given = {key: value for key, value in step.items() if key != "function"}
    try:
        FILTER_REGISTRY.get(step["function"])(**given)
    except re.error as error:
        yield f"has a filter '{name}' whose regex_pattern is broken: {error}. Mend the pattern."
    except Exception as error:  # noqa: BLE001 -- whatever a filter raises for its arguments
        why = f"{type(error).__name__}: {error}"
        yield (
            f"has a filter '{name}' whose function '{step['function']}' does not take what is "
            f"given to it ({why[:120]}). Correct its arguments."
        )


def _data(definition: Definition) -> Iterator[str]:
    config, path = definition.config, definition.config.get("dataset_path")
    if path is None:
        if config.get("custom_dataset") is None:
            yield "has no dataset_path. Write 'dataset_path: json', and data_files behind it."
    elif path in BUILDERS:
        yield from _data_files(definition)
    elif any(is_there(place / str(path)) for place in (definition.folder, Path())):
        yield (
            f"has dataset_path '{path}', a file or folder. Write 'dataset_path: json' (or csv, "
            "parquet), and data_files in dataset_kwargs."
        )
    elif str(path) in _PACKAGED_DATASETS_MODULES:
        yield (
            f"has items of the kind '{path}' (dataset_path), which harness does not read. Keep "
            "them as json, csv or parquet."
        )
    elif str(path).endswith(".py") or not _HUB_NAME.fullmatch(str(path)):
        yield f"has dataset_path '{path}', no folder that is there and no name of a data set."
    elif config.get("custom_dataset") is None:
        yield from _of_the_hub(config.get("dataset_kwargs") or {})


def _of_the_hub(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield which arguments would do more than choose items of a data set of the Hub."""
    for key in arguments:
        if key not in (*_OF_THE_HUB, "trust_remote_code"):
            known = ", ".join(_OF_THE_HUB)
            yield f"has dataset_kwargs.{key}, and a data set of the Hub takes {known} alone."
    for key in ("data_files", "data_dir"):
        for path in _texts_in(arguments.get(key)):
            if not _IN_THE_DATA_SET.fullmatch(path) or ".." in path.split("/"):
                yield (
                    f"has dataset_kwargs.{key} '{path}', which is no path within the data set. "
                    "Write it as the Hub lists it, such as 'data/test.jsonl'."
                )


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(part)
    elif value is not None:
        yield str(value)


def _data_files(definition: Definition) -> Iterator[str]:
    files = definition.data_files()
    if not files:
        yield "names no data_files in dataset_kwargs. Write 'data_files: {test: FILE.jsonl}'."
    for split, paths in files.items():
        if any(":/" in str(path) for path in paths):
            yield f"has the items of '{split}' at an address. Keep the file beside the task."


def _splits(definition: Definition, spec: TaskSpec) -> Iterator[str]:
    config = definition.config
    known = list(definition.data_files())
    asked = config.get("test_split") or config.get("validation_split")
    if asked is None:
        has = f" It has {' and '.join(known)}." if known else ""
        yield f"has no test_split, so no item is asked.{has} Write 'test_split: NAME'."
    keys = ("test_split", "validation_split", "training_split", "fewshot_split")
    for key in keys if known else ():
        if config.get(key) is not None and config[key] not in known:
            yield (
                f"has {key}: {config[key]}, and its data_files have {' and '.join(known)}. "
                "Name one of these."
            )
    if spec.num_fewshot and config.get("num_fewshot") != 0:
        yield from _shots(config, spec)


def _shots(config: Mapping[str, Any], spec: TaskSpec) -> Iterator[str]:
    few = config.get("fewshot_config")
    has_own = isinstance(few, Mapping) and (few.get("split") or few.get("samples"))
    if has_own or any(config.get(f"{k}_split") for k in ("fewshot", "training")):
        return
    if config.get("test_split") and config.get("validation_split"):
        return
    yield (
        f"is asked with {spec.num_fewshot} worked examples, and names no split for them: they "
        "would be the items themselves, with the answers. Write 'fewshot_split: NAME', or "
        "num_fewshot: 0 in the suite."
    )


def _is_known(name: object, registry: Iterable[str]) -> bool:
    return isinstance(name, FunctionName) or (isinstance(name, str) and name in registry)


def _near(name: object, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else f" It knows {', '.join(sorted(names)[:12])}."
