"""Code that is not beside a task: of the Hub, of lm-eval, of libraries that read items."""

import datetime as dt
import importlib.util
import json
import py_compile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import SuiteError
from harness.score.prepare import load_tasks, try_prompts
from harness.score.sources import LM_EVAL_TASKS, Catalog
from harness.score.templating import templates
from tests.own_tasks import ASK, ASKED, GENERATED, MARK, OwnTasks, lines, loaded, write_code

CODED = [{"metric": "some/space", "aggregation": "mean"}]


@pytest.fixture
def own(tmp_path: Path) -> OwnTasks:
    made = OwnTasks(tmp_path / "mine")
    made.write_suite(ASKED)
    return made


FETCHED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "a metric of the Hub": ("'some/space', which lm-eval has not", {"metric_list": CODED}),
    "a metric of the folder": (
        "metric '.', which lm-eval has not",
        {"metric_list": [{"metric": ".", "aggregation": "mean"}]},
    ),
    "a known metric as the Hub has it": (
        "metric 'exact_match' from the Hub",
        {"metric_list": [{"metric": "exact_match", "aggregation": "mean", "hf_evaluate": True}]},
    ),
    "a data set's own code": (
        "trust_remote_code",
        {"dataset_path": "some/set", "dataset_kwargs": {"trust_remote_code": True}},
    ),
    "a prompt": ("use_prompt", {"use_prompt": "prompts.yaml:mine"}),
    "a class": ("is a Python class", {"class": "mine.Task"}),
    "a folder": ("a file or folder", {"dataset_path": "sub"}),
    "a folder of the current one": ("a file or folder", {"dataset_path": "here"}),
    "a script": ("a file or folder", {"dataset_path": "mine.py"}),
    "an address": ("no name of a data set", {"dataset_path": "hf://datasets/some/set"}),
    "a kind that unpickles": ("items of the kind 'pandas'", {"dataset_path": "pandas"}),
    "another file system": (
        "no path within the data set",
        {
            "dataset_path": "some/set",
            "dataset_kwargs": {"data_files": {"test": ["reference::/x.json"]}},
        },
    ),
    "options of a file system": (
        "dataset_kwargs.storage_options",
        {"dataset_path": "some/set", "dataset_kwargs": {"storage_options": {"fo": "x.json"}}},
    ),
    "a file outside of the data set": (
        "no path within the data set",
        {"dataset_path": "some/set", "dataset_kwargs": {"data_files": "../x.jsonl"}},
    ),
}


@pytest.mark.parametrize("name", FETCHED)
def test_code_elsewhere_is_refused_whatever_was_typed(
    own: OwnTasks,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    words, values = FETCHED[name]
    (own.folder / "sub").mkdir()
    (own.folder / "mine.py").write_text(MARK)
    (own.root / "here").mkdir()
    monkeypatch.chdir(own.root)
    own.write_task(GENERATED, **values)
    assert any(words in line for line in lines(own, task_code=True))
    suite = loaded(own, task_code=True)
    with pytest.raises(SuiteError, match=r"own_next\.yaml"):
        try_prompts(Catalog(suite.tasks_from), suite, suite.tasks[0])
    assert not (own.folder / "ran").exists()


def test_python_of_lm_eval_over_own_items_runs_only_when_allowed(own: OwnTasks) -> None:
    theirs = next(
        path
        for path in sorted(LM_EVAL_TASKS.glob("mmlu_pro/*.yaml"))
        if "!function utils." in path.read_text()
    )
    own.write_task(GENERATED, include=str(theirs))
    (line,) = [one for one in lines(own) if "!function" in one][:1]
    assert "runs Python of lm-eval over what it says itself" in line
    assert not [one for one in lines(own, task_code=True) if "!function" in one]


def test_code_is_taken_from_its_text_not_from_what_lies_compiled(own: OwnTasks) -> None:
    write_code(own, "mine.ask")
    code = own.folder / "mine.py"
    code.write_text(f"{MARK}{ASK}")
    cached = importlib.util.cache_from_source(str(code))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(code), cached, doraise=True, invalidation_mode=unchecked)
    code.write_text(ASK)
    assert lines(own, task_code=True) == []
    assert not (own.folder / "ran").exists()


def test_a_template_has_no_methods_of_what_is_not_plain() -> None:
    for value in (np.float64(0.5), np.zeros(3)):
        with pytest.raises(jinja2.exceptions.SecurityError):
            templates().from_string("{{ value.tofile('x') }}").render(value=value)
    plain = "{{ text.upper() }} {{ day.year }} {% for x in items %}{{ loop.index }}{% endfor %}"
    values = {"text": "a", "day": dt.date(2020, 1, 2), "items": [1, 2]}
    assert templates().from_string(plain).render(values) == "A 2020 12"


def test_lm_eval_renders_in_the_sandbox_after_a_task_is_loaded(own: OwnTasks) -> None:
    suite = loaded(own)
    tasks = load_tasks(Catalog(suite.tasks_from), suite, suite.tasks[0])
    with pytest.raises(jinja2.exceptions.SecurityError):
        tasks["own_next"].doc_to_text({}, "{{ ''.__class__.__mro__ }}")


def test_a_parquet_file_gives_values_and_no_pictures(own: OwnTasks) -> None:
    rows = [{**row, "picture": {"bytes": b"none", "path": "/x.png"}} for row in own.items]
    text = {"dtype": "string", "_type": "Value"}
    kinds = {"prompt": text, "answer": text, "picture": {"_type": "Image"}}
    said = {"huggingface": json.dumps({"info": {"features": kinds}})}
    data = own.folder / "own_next.parquet"
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(said), data)
    own.write_task(
        GENERATED,
        dataset_path="parquet",
        dataset_kwargs={"data_files": {"test": data.name}},
        fewshot_split=None,
    )
    assert lines(own) == []
