"""What users get wrong in own tasks: each mistake is told in a line, before any model is loaded."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.errors import SuiteError
from harness.recipe import load_suite
from harness.score import mistakes_of
from tests.own_tasks import ASKED, ASKED_TO_CHOOSE, CHOSEN, GENERATED, OwnTasks

Values = Mapping[str, Any]


class Mistake(NamedTuple):
    """One mistake, and what its line says."""

    words: tuple[str, ...]
    make: Callable[[OwnTasks], object]


def task(*words: str, **changes: Any) -> Mistake:  # noqa: ANN401 - as YAML has it
    return Mistake(words, lambda own: own.write_task(GENERATED, **changes))


def choice(*words: str, **changes: Any) -> Mistake:  # noqa: ANN401 - as YAML has it
    return Mistake(words, lambda own: own.write_task(CHOSEN, **changes))


def asked(*words: str, **changes: object) -> Mistake:
    return Mistake(words, lambda own: own.write_suite({**ASKED, **changes}, ASKED_TO_CHOOSE))


def suite(*words: str, **changes: object) -> Mistake:
    return Mistake(words, lambda own: own.write_suite(**changes))


def item(*words: str, **changes: object) -> Mistake:
    """Spoil the 17th item that is answered; None takes a field out."""

    def make(own: OwnTasks) -> None:
        spoiled = {k: v for k, v in {**own.items[16], **changes}.items() if v is not ...}
        own.write_items("own_next", [*own.items[:16], spoiled, *own.items[17:]])

    return Mistake(words, make)


def chosen_item(*words: str, **changes: object) -> Mistake:
    def make(own: OwnTasks) -> None:
        spoiled = {**own.choices[16], **changes}
        own.write_items("own_choice", [*own.choices[:16], spoiled, *own.choices[17:]])

    return Mistake(words, make)


def text_of(file: str, old: str, new: str, *words: str) -> Mistake:
    def make(own: OwnTasks) -> None:
        path = own.folder / file
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    return Mistake(words, make)


def shots(*words: str, num: int = 2, **changes: Any) -> Mistake:  # noqa: ANN401 - as YAML has it
    """Ask with worked examples, of a task with changes."""

    def make(own: OwnTasks) -> None:
        own.write_suite({**ASKED, "num_fewshot": num})
        own.write_task(GENERATED, **changes)

    return Mistake(words, make)


def group(*words: str, members: object) -> Mistake:
    def make(own: OwnTasks) -> None:
        own.write_task({"task": members, "group": "own_group"}, "own_group.yaml")
        own.write_suite({**ASKED, "name": "own_group"})

    return Mistake(words, make)


def renamed(own: OwnTasks) -> None:
    path = own.folder / "own_next.yaml"
    path.write_text(path.read_text().replace("task: own_next", "task: own_sums"))


def included_twice(own: OwnTasks) -> None:
    for name in ("_one.yaml", "_other.yaml"):
        (own.folder / name).write_text("include: _base.yaml\n")
    (own.folder / "_base.yaml").write_text("num_fewshot: 0\n")
    own.write_task(GENERATED, include=["_one.yaml", "_other.yaml"])


def data(**files: object) -> dict[str, object]:
    return {"data_files": files}


HERE = ("own_next.jsonl:17", "1 of 60 items")
MISTAKES: Mapping[str, Mistake] = {
    # The YAML file
    "YAML that is broken": text_of(
        "own_next.yaml", "test_split: test", "test_split: [test", "own_next.yaml'", "in line"
    ),
    "YAML with a tab": text_of(
        "own_next.yaml", "test_split: test", "\ttest_split: test", "own_next.yaml'", "in line"
    ),
    "a key that is there twice": text_of(
        "own_next.yaml",
        "test_split: test",
        "test_split: test\ntest_split: test",
        "'test_split' is given twice, in line",
    ),
    "a file that ends in .yml": Mistake(
        ("own_next.yml", "Rename it"),
        lambda own: (own.folder / "own_next.yaml").rename(own.folder / "own_next.yml"),
    ),
    "a name that differs from the file's": Mistake(
        ("unknown task: 'own_next'", "defines 'own_sums'"), renamed
    ),
    "a name that is nowhere": asked("unknown task: 'own_nxt'", "'own_next'", name="own_nxt"),
    "an include that is not there": task("includes 'base.yaml'", include="base.yaml"),
    "an include of itself": task("includes itself", include="own_next.yaml"),
    "an include that comes by two ways": Mistake(("_base.yaml' twice",), included_twice),
    "a key that lm-eval does not know": task(
        "the key 'doc_to_txt'", "Did you mean 'doc_to_text'?", doc_to_txt="{{prompt}}"
    ),
    "no doc_to_text": task("has no doc_to_text", doc_to_text=None),
    "no doc_to_target": task("has no doc_to_target", doc_to_target=None),
    "no doc_to_choice": choice("has no doc_to_choice", doc_to_choice=None),
    "an unknown output_type": task("output_type 'generate'", output_type="generate"),
    "images": task("asks for images", doc_to_image="{{image}}"),
    # Python
    "code that the model wrote": task("runs code that the model wrote", unsafe_code=True),
    "Python of the folder": text_of(
        "own_next.yaml", "'{{answer}}'", "!function code.f", "doc_to_target: !function code.f"
    ),
    "Python in the metrics": text_of(
        "own_next.yaml", "metric: exact_match", "metric: !function os.getcwd", "!function os.getcwd"
    ),
    "a function without !function": task(
        "process_docs: code.f", "!function code.f", process_docs="code.f"
    ),
    "a Python class": text_of(
        "own_next.yaml", "task: own_next", "task: own_next\nclass: X", "class"
    ),
    "code of a data set": task(
        "trust_remote_code",
        dataset_kwargs=data(test="own_next.jsonl") | {"trust_remote_code": True},
    ),
    # Data
    "no dataset_path": task("has no dataset_path", dataset_path=None),
    "no data_files": task("names no data_files", dataset_kwargs=None),
    "data that are not there": task(
        "nowhere.jsonl' is not there", dataset_kwargs=data(test="nowhere.jsonl")
    ),
    "data at an address": task(
        "at an address", dataset_kwargs=data(test="https://example.org/x.jsonl")
    ),
    "a folder as data": task("a file or folder", dataset_path="."),
    "a builder that unpickles": task("of the kind 'pandas'", dataset_path="pandas"),
    "a data set that cannot be had": task(
        "the data of task 'own_next'", dataset_path="no/such-set"
    ),
    "no test_split": task("has no test_split", "Write 'test_split", test_split=None),
    "a split that is not there": task("test_split: tset", "have test", test_split="tset"),
    "a line that is no JSON": text_of(
        "own_next.jsonl", '{"prompt": "Q: 26', "{", "jsonl:17", "JSON"
    ),
    "a line that is no object": text_of(
        "own_next.jsonl", '{"prompt": "Q: 26+21? A:", "answer": "47"}', "[1]", "jsonl:17"
    ),
    "an empty line": text_of(
        "own_next.jsonl", '{"prompt": "Q: 26', '\n{"prompt": "Q: 26', "jsonl:17"
    ),
    "a file without items": Mistake(
        ("has 0 items", "asks for 60"), lambda own: own.write_items("own_next", [])
    ),
    "more items than there are": asked("has 60 items, the suite asks for 61", items=61),
    # Templates
    "a field that no item has": task(
        "doc_to_text names the field 'promt'", "60 of 60", "'prompt'", doc_to_text="{{promt}}"
    ),
    "a field that one item lacks": item("field 'prompt'", *HERE, prompt=...),
    "a field of a field": task(
        "doc_to_text asks for what is not there", doc_to_text="{{prompt.x.y}}"
    ),
    "broken Jinja": task("doc_to_text that is no Jinja template", "line 1", doc_to_text="{{prompt"),
    "a Jinja tag that is not ended": task(
        "no Jinja template", doc_to_text="{% if prompt %}{{prompt}}"
    ),
    "a template that divides by zero": task("ZeroDivisionError", doc_to_text="{{1/0}}"),
    "a template that reaches for Python": task(
        "unsafe", doc_to_text="{{prompt.__class__.__mro__}}"
    ),
    "a name of no field": task("doc_to_text is 'question'", "no field", doc_to_text="question"),
    "an answer that is the same for all": task(
        "doc_to_target is 'Answer'", "no field", doc_to_target="Answer"
    ),
    "a prompt that is empty": item("the prompt is empty", *HERE, prompt=" "),
    "a prompt that is a number": Mistake(
        (
            "doc_to_text gives no text",
            "jsonl:1: 0",
        ),
        lambda own: (
            own.write_task(GENERATED, doc_to_text="prompt"),
            own.write_items("own_next", [{**one, "prompt": n} for n, one in enumerate(own.items)]),
        ),
    ),
    # Answers
    "an item without its answer": item("'answer'", *HERE, answer=...),
    "an answer that is null": item("has no answer", *HERE, answer=None),
    "an answer that is empty": item("has no answer", *HERE, answer=""),
    "an answer at which answers end": item("holds '\\n'", "until", *HERE, answer="1\n2"),
    "an item that is there twice": item(
        "an item is there twice", *HERE, prompt="Q: 13+21? A:", answer="34"
    ),
    "a question with two answers": item("with two answers", *HERE, prompt="Q: 13+21? A:"),
    # Choices
    "a choice beyond the last": chosen_item("beyond the choices", "choice 2 of 2", gold=2),
    "a choice before the first": chosen_item("choice -1 of 2", gold=-1),
    "an answer that is no choice": chosen_item("is none of the choices", "'99'", gold="99"),
    "no right choice": chosen_item("has no answer", gold=None),
    "no choices": chosen_item("no two choices", "jsonl:17: 0", choices=[]),
    "one choice": chosen_item("no two choices", "jsonl:17: 1", choices=[" 16"], gold=0),
    "an empty choice": chosen_item("a choice is no text", "jsonl:17: ''", choices=[" 16", ""]),
    "a choice that is a number": chosen_item("no text", choices=[1, 2]),
    "two choices that are the same": chosen_item("two choices are the same", choices=[" 1", " 1"]),
    "choices that are no list": choice("doc_to_choice gives no list", doc_to_choice="{{prompt}}"),
    "a chance below that of guessing": Mistake(
        ("guessing gets 0.1", "Set chance to 0.5"),
        lambda own: own.write_suite(ASKED, {**ASKED_TO_CHOOSE, "chance": 0.1}),
    ),
    # Scoring
    "an unknown metric of the task": asked("'exact'", "exact_match", metric="exact"),
    "a metric that lm-eval has not": task(
        "the metric 'exact_mach'", "'exact_match'", metric_list=[{"metric": "exact_mach"}]
    ),
    "a metric from the Hub": task(
        "from the Hub", metric_list=[{"metric": "exact_match", "hf_evaluate": True}]
    ),
    "an aggregation that lm-eval has not": task(
        "the aggregation 'avg'", metric_list=[{"metric": "exact_match", "aggregation": "avg"}]
    ),
    "an unknown filter of the task": asked("unknown filter", "'strict'", "plain", filter="strict"),
    "a filter function that lm-eval has not": task(
        "the filter function 'regx'",
        "'regex'",
        filter_list=[{"name": "plain", "filter": [{"function": "regx"}]}],
    ),
    "a broken pattern of a filter": task(
        "regex_pattern is broken",
        filter_list=[{"name": "plain", "filter": [{"function": "regex", "regex_pattern": "("}]}],
    ),
    "a filter that lacks what it needs": task(
        "a filter 'plain' whose function 'custom' does not take what is given",
        filter_list=[{"name": "plain", "filter": [{"function": "custom"}]}],
    ),
    "a filter without steps": task("in its filter_list", filter_list=[{"name": "plain"}]),
    "a text where a list belongs": task("has filter_list: 'x', no list", filter_list="x"),
    "a number where a text belongs": task("has test_split: 5", "a text", test_split=5),
    "a budget that is no number": task(
        "has generation_kwargs.max_gen_toks: 'x'",
        generation_kwargs={"until": ["\n"], "max_gen_toks": "x"},
    ),
    "files that are no names": task("has data_files: {'test': 5}", dataset_kwargs=data(test=5)),
    # Worked examples
    "no split for worked examples": shots("names no split for them", fewshot_split=None),
    "a split for them that is not there": shots("fewshot_split: shot", fewshot_split="shot"),
    "fewer examples than are shown": shots("has 4 worked examples", "at least 5", num=5),
    "an example without its answer": Mistake(
        ("worked examples", "has no answer"),
        lambda own: (
            own.write_suite({**ASKED, "num_fewshot": 2}),
            own.write_items("shots", [{"prompt": f"{n}", "answer": ""} for n in range(4)]),
        ),
    ),
    # Groups
    "a group with a member that is nowhere": group(
        "the member 'own_nxt'", members=["own_next", "own_nxt"]
    ),
    "a group of itself": group("is the group itself", members=["own_group"]),
    "items that a group cannot share out": Mistake(
        ("61 cannot be had so: set items to 60 or 62",),
        lambda own: (
            own.write_task(GENERATED, "second.yaml", task="own_second"),
            own.write_task({"task": ["own_next", "own_second"], "group": "g"}, "g.yaml"),
            own.write_suite({**ASKED, "name": "g", "items": 61}),
        ),
    ),
    # The suite
    "a key that suites do not have": suite("max_len", "'max_model_len'", max_len=5),
    "a key that is missing": suite("max_model_len", "required", max_model_len=None),
    "a task that is listed twice": Mistake(
        ("lists the task 'own_next' twice",), lambda own: own.write_suite(ASKED, ASKED)
    ),
    "a folder that is not there": suite("taks' is not there", tasks_from=["taks"]),
    "no room for a prompt": suite("no room for a prompt", max_model_len=8),
    "thinking by half": suite("has thinking on", thinking=True),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    own = OwnTasks(tmp_path / "mine")
    words, make = MISTAKES[name]
    make(own)
    lines = told(own.suite)
    found = [line for line in lines if all(word in line for word in words)]
    assert len(found) == 1, lines
    assert "\n" not in found[0]


def test_an_answer_may_be_the_text_of_a_choice_that_is_a_number(tmp_path: Path) -> None:
    own = OwnTasks(tmp_path / "mine")
    own.write_items("own_choice", [{**one, "gold": one["choices"][1]} for one in own.choices])
    assert told(own.suite) == []


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    own = OwnTasks(tmp_path / "mine")
    own.write_task(GENERATED, doc_to_text="{{promt}}", test_split="test", doc_to_image="x")
    own.write_task(CHOSEN, doc_to_target=None)
    own.write_suite({**ASKED, "filter": "strict", "items": 70}, ASKED_TO_CHOOSE)
    lines = told(own.suite)
    for word in ("'promt'", "images", "doc_to_target", "'strict'", "has 60 items"):
        assert sum(word in line for line in lines) == 1, (word, lines)


def told(path: Path) -> list[str]:
    try:
        return [str(error) for error in mistakes_of(load_suite(str(path)))]
    except SuiteError as error:
        return [str(error)]
