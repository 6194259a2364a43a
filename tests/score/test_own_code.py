"""What lm-eval would run or ask of own tasks is what was looked at and hashed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SuiteError, UnreadableError
from harness.reading import bounds
from harness.score.prepare import load_tasks, try_prompts
from harness.score.sources import Catalog
from tests.own_tasks import ASK, ASKED, GENERATED, MARK, OwnTasks, lines, loaded, write_code

BOTH = ["own_next", "own_second"]
CODED = [{"metric": "some/space", "aggregation": "mean"}]
AGGREGATED = [{"metric": "exact_match", "aggregation": "mean", "weight_by_size": True}]


@pytest.fixture
def own(tmp_path: Path) -> OwnTasks:
    made = OwnTasks(tmp_path / "mine")
    made.write_task(GENERATED, "own_second.yaml", task="own_second")
    made.write_suite(ASKED)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def write_group(own: OwnTasks, values: Mapping[str, Any], items: int = 120) -> None:
    own.write_task({"group": "own_both", **values}, "both.yaml")
    own.write_suite({**ASKED, "name": "own_both", "items": items})


LAID_OVER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "metrics": ("'metric_list'", {"task": BOTH, "metric_list": CODED}),
    "items": ("'dataset_path'", {"task": BOTH, "dataset_path": "some/set"}),
    "files": ("'dataset_kwargs'", {"task": BOTH, "dataset_kwargs": {"data_files": "/x.jsonl"}}),
    "a class": ("'class'", {"task": BOTH, "class": "X"}),
    "one member's metrics": (
        "'metric_list' at its member 'own_next'",
        {"task": [{"task": "own_next", "metric_list": CODED}, "own_second"]},
    ),
    "metrics of a group in it": (
        "'metric_list' in its group 'here'",
        {"task": [{"group": "here", "task": BOTH, "metric_list": CODED}]},
    ),
    "metrics of a member of a group in it": (
        "'metric_list' at its member 'own_second'",
        {
            "task": [
                {
                    "group": "here",
                    "task": ["own_next", {"task": "own_second", "metric_list": CODED}],
                }
            ]
        },
    ),
    "an aggregation": (
        "aggregate_metric_list",
        {"task": BOTH, "aggregate_metric_list": [{"metric": "acc", "aggregation": "some/space"}]},
    ),
    "a task that calls itself a group": ("Write 'task: [NAME, ...]'", {"task": "own_next"}),
}


@pytest.mark.parametrize("name", LAID_OVER)
@pytest.mark.parametrize("task_code", [False, True])
def test_a_group_lays_nothing_over_its_members(own: OwnTasks, name: str, task_code: bool) -> None:  # noqa: FBT001 -- pytest's
    words, values = LAID_OVER[name]
    write_group(own, values)
    (line,) = lines(own, task_code=task_code)
    assert words in line
    assert "both.yaml'" in line


def test_a_group_that_another_group_has_lays_nothing_over_its_members(own: OwnTasks) -> None:
    own.write_task({"group": "inner", "task": BOTH, "metric_list": CODED}, "inner.yaml")
    write_group(own, {"task": ["inner"]})
    (line,) = lines(own)
    assert "inner.yaml') has the key 'metric_list'" in line


@pytest.mark.parametrize("name", ["metrics", "one member's metrics", "an aggregation"])
def test_what_a_group_lays_over_its_members_is_not_loaded(own: OwnTasks, name: str) -> None:
    write_group(own, LAID_OVER[name][1])
    suite = loaded(own, task_code=True)
    with pytest.raises(SuiteError, match=r"both\.yaml"):
        try_prompts(Catalog(suite.tasks_from), suite, suite.tasks[0])


@pytest.mark.parametrize("task_code", [False, True])
def test_a_group_runs_no_python(own: OwnTasks, task_code: bool) -> None:  # noqa: FBT001 -- pytest's
    (own.folder / "mine.py").write_text(f"{MARK}def mean(values):\n    return 1.0\n")
    write_group(own, {"task": BOTH, "aggregate_metric_list": AGGREGATED})
    path = own.folder / "both.yaml"
    path.write_text(
        path.read_text().replace("aggregation: mean", "aggregation: !function mine.mean")
    )
    found = lines(own, task_code=task_code)
    assert any("runs Python: aggregate_metric_list: !function mine.mean" in line for line in found)
    assert not (own.folder / "ran").exists()


@pytest.mark.parametrize(
    "members",
    [
        BOTH,
        ["own_next", {"task": "own_second", "task_alias": "other"}],
        ["own_next", {"group": "here", "group_alias": "Here", "task": ["own_second"]}],
    ],
)
def test_a_group_may_say_all_that_is_its_own(own: OwnTasks, members: list[object]) -> None:
    said = {"group_alias": "Both", "metadata": {"version": 1}, "tag": "mine"}
    write_group(own, {**said, "task": members, "aggregate_metric_list": AGGREGATED})
    assert lines(own) == []


def test_a_written_group_is_not_called_like_one_that_is_known(own: OwnTasks) -> None:
    own.write_task({"group": "here", "task": ["own_second"]}, "here.yaml")
    write_group(own, {"task": [{"group": "here", "task": ["own_next"]}]}, items=60)
    (line,) = lines(own)
    assert "has a group 'here' in it, which is called like one" in line


def test_python_of_a_group_that_is_asked_instead_of_a_written_one_does_not_run(
    own: OwnTasks,
) -> None:
    (own.folder / "mine.py").write_text(f"{MARK}{ASK}")
    write_code(own, "mine.ask", "third.yaml", task="own_third")
    own.write_task({"group": "here", "task": ["own_third"]}, "here.yaml")
    write_group(own, {"task": [{"group": "here", "task": ["own_next"]}]}, items=60)
    suite = loaded(own)
    with pytest.raises(SuiteError, match="runs Python of its folder"):
        try_prompts(Catalog(suite.tasks_from), suite, suite.tasks[0])
    assert not (own.folder / "ran").exists()


def test_a_member_that_is_a_group_is_written_as_a_name(own: OwnTasks) -> None:
    own.write_task({"group": "inner", "task": BOTH}, "inner.yaml")
    write_group(own, {"task": [{"task": "inner"}]})
    (line,) = lines(own)
    assert "Write '- inner'" in line


def test_a_tag_is_not_called_like_a_task(own: OwnTasks) -> None:
    (own.folder / "mine.py").write_text(f"{MARK}{ASK}")
    write_code(own, "mine.ask", "another.yaml", task="another", tag="own_next")
    (line,) = lines(own)
    assert "'own_next' is defined in" in line
    assert "is a tag in" in line
    assert not (own.folder / "ran").exists()


def test_a_link_to_a_task_is_the_file_that_it_leads_to(own: OwnTasks, elsewhere: Path) -> None:
    for name in ("own_next.jsonl", "shots.jsonl"):
        (own.folder / name).rename(elsewhere / name)
    target = elsewhere / "target.yaml"
    base = elsewhere / "_base.yaml"
    own.write_task(GENERATED, "_base.yaml", task=None).rename(base)
    own.write_task({"task": "own_next", "include": "_base.yaml"}).rename(target)
    own.write_task({"doc_to_text": "{{another}}"}, "_base.yaml")
    (own.folder / "own_next.yaml").symlink_to(target)
    before = loaded(own)
    assert lines(own) == []
    base.write_text(base.read_text() + "# another\n")
    assert loaded(own).digest != before.digest


HIDDEN = {
    "a value": "metadata: !function mine.ask",
    "a list": "metadata: {x: [1, !function mine.ask]}",
    "pairs": "metadata: !!pairs [x: !function mine.ask]",
    "an ordered mapping": "metadata: !!omap [x: !function mine.ask]",
    "a set": "metadata: !!set {? !function mine.ask }",
    "a key": "metadata: {!function mine.ask : 1}",
    "a key of the file": "!function mine.ask : 1",
    "what is merged and written over": "<<: {doc_to_text: !function mine.ask}",
    "an alias": "metadata: {x: &one !function mine.ask, y: *one}",
    "a tag in full": "metadata: !<!function> mine.ask",
    "the tag's letters as numbers": "metadata: !%66unction mine.ask",
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("included", [False, True])
def test_python_is_found_wherever_it_is_named(own: OwnTasks, name: str, included: bool) -> None:  # noqa: FBT001 -- pytest's
    (own.folder / "mine.py").write_text(f"{MARK}{ASK}")
    path = own.folder / ("_base.yaml" if included else "own_next.yaml")
    written = own.write_task(GENERATED, **({"include": "_base.yaml"} if included else {}))
    text = "" if included else written.read_text().replace("metadata:\n  version: 1.0\n", "")
    path.write_text(f"{text}{HIDDEN[name]}\n")
    assert any("!function mine.ask" in line for line in lines(own))
    suite = loaded(own)
    with pytest.raises(SuiteError, match=r"!function mine\.ask"):
        try_prompts(Catalog(suite.tasks_from), suite, suite.tasks[0])
    assert not (own.folder / "ran").exists()


def link_the_task(own: OwnTasks, elsewhere: Path) -> None:
    write_code(own, "mine.ask").rename(elsewhere / "target.yaml")
    (own.folder / "own_next.yaml").symlink_to(elsewhere / "target.yaml")


def link_the_include(own: OwnTasks, elsewhere: Path) -> None:
    write_code(own, "mine.ask", "x.yaml", task=None).rename(elsewhere / "target.yaml")
    (own.folder / "_base.yaml").symlink_to(elsewhere / "target.yaml")
    own.write_task({"task": "own_next", "include": "_base.yaml"})


def link_what_is_included_further(own: OwnTasks, elsewhere: Path) -> None:
    write_code(own, "mine.ask", "x.yaml", task=None).rename(elsewhere / "code.yaml")
    (elsewhere / "target.yaml").write_text("include: code.yaml\n")
    (own.folder / "_base.yaml").symlink_to(elsewhere / "target.yaml")
    own.write_task(GENERATED, "code.yaml", task=None)
    own.write_task({"task": "own_next", "include": "_base.yaml"})


LINKS = [link_the_task, link_the_include, link_what_is_included_further]


@pytest.mark.parametrize("link", LINKS)
def test_python_behind_a_link_does_not_run(own: OwnTasks, elsewhere: Path, link: Any) -> None:  # noqa: ANN401 -- a function
    link(own, elsewhere)
    (elsewhere / "mine.py").write_text(MARK + ASK)
    assert any("runs Python of its folder" in line for line in lines(own))
    suite = loaded(own)
    with pytest.raises(SuiteError, match="runs Python of its folder"):
        try_prompts(Catalog(suite.tasks_from), suite, suite.tasks[0])
    assert not (elsewhere / "ran").exists()


@pytest.mark.parametrize("link", LINKS)
def test_python_behind_a_link_is_in_the_digest(own: OwnTasks, elsewhere: Path, link: Any) -> None:  # noqa: ANN401 -- a function
    link(own, elsewhere)
    code = elsewhere / "mine.py"
    code.write_text(ASK)
    before = loaded(own, task_code=True).digest
    code.write_text(f"{ASK}# another\n")
    assert loaded(own, task_code=True).digest != before


def test_links_that_lead_to_each_other_are_told(own: OwnTasks) -> None:
    (own.folder / "a.yaml").symlink_to(own.folder / "b.yaml")
    (own.folder / "b.yaml").symlink_to(own.folder / "a.yaml")
    assert lines(own) == []
    own.write_task(GENERATED, include="a.yaml")
    (line,) = lines(own)
    assert "includes 'a.yaml'" in line


def test_python_in_folders_of_the_folder_is_in_the_digest(own: OwnTasks) -> None:
    code = own.folder / "sub" / "metrics.py"
    code.parent.mkdir()
    code.write_text(ASK)
    write_code(own, "sub.metrics.ask")
    before = loaded(own, task_code=True)
    assert lines(own, task_code=True) == []
    code.write_text(f"{ASK}# another\n")
    changed = loaded(own, task_code=True)
    assert changed.digest != before.digest
    code.rename(code.with_name("other.py"))
    assert loaded(own, task_code=True).digest != changed.digest


def outside(elsewhere: Path) -> Path:
    code = elsewhere / "mine.py"
    code.write_text(MARK + ASK)
    return code


@pytest.mark.parametrize("kind", ["installed", "absolute", "link", "folder", "hidden", "no module"])
def test_python_that_is_no_file_of_the_folder_is_refused(
    own: OwnTasks, elsewhere: Path, kind: str
) -> None:
    code = outside(elsewhere)
    function = "mine.ask"
    if kind == "installed":
        function = "os.path.basename"
    elif kind == "absolute":
        function = f"{code.with_suffix('')}.ask"
    elif kind == "link":
        (own.folder / "mine.py").symlink_to(code)
    elif kind == "folder":
        (own.folder / "sub").symlink_to(elsewhere)
        function = "sub.mine.ask"
    elif kind == "hidden":
        (own.folder / ".sub").mkdir()
        (own.folder / ".sub" / "mine.py").write_text(ASK)
        (own.folder / "mine.py").symlink_to(own.folder / ".sub" / "mine.py")
    else:
        function = "ask"
    write_code(own, function)
    (line,) = lines(own, task_code=True)
    assert f"runs Python that is no file of its folder: doc_to_text: !function {function}" in line
    suite = loaded(own, task_code=True)
    with pytest.raises(SuiteError, match="no file of its folder"):
        try_prompts(Catalog(suite.tasks_from), suite, suite.tasks[0])
    assert not (elsewhere / "ran").exists()


@pytest.mark.parametrize("bound", ["CODE_FILES", "CODE_BYTES"])
def test_more_python_than_is_hashed_is_refused(
    own: OwnTasks, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    write_code(own, "mine.ask")
    for name in ("mine", "other"):
        (own.folder / f"{name}.py").write_text(ASK)
    loaded(own, task_code=True)
    monkeypatch.setattr(bounds, bound, 1)
    with pytest.raises(UnreadableError, match="Python files"):
        loaded(own, task_code=True)


def test_a_folder_of_tasks_is_no_whole_disk(own: OwnTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "FOLDER_FILES", 3)
    with pytest.raises(UnreadableError, match="more than 3 files"):
        loaded(own)


def test_a_file_whose_name_is_no_text_is_hashed(own: OwnTasks) -> None:
    write_code(own, "mine.ask")
    (own.folder / "mine.py").write_text(ASK)
    before = loaded(own, task_code=True).digest
    Path(os.fsdecode(os.fsencode(own.folder) + b"/\xff.py")).touch()
    assert loaded(own, task_code=True).digest != before


SHADOWS: Mapping[str, Mapping[str, Any]] = {
    "a member": {"task": "blimp_adjunct_island"},
    "a member's group": {"task": "another", "tag": "mmlu_stem_tasks"},
    "a group within": {"group": "mmlu_stem", "task": ["own_third"]},
}


@pytest.mark.usefixtures("lm_eval_index")
@pytest.mark.parametrize("name", SHADOWS)
def test_what_lm_eval_asks_is_not_taken_from_own_tasks(own: OwnTasks, name: str) -> None:
    (own.folder / "mine.py").write_text(f"{MARK}{ASK}")
    write_code(own, "mine.ask", "third.yaml", task="own_third")
    if "group" in SHADOWS[name]:
        own.write_task(SHADOWS[name], "shadow.yaml")
    else:
        write_code(own, "mine.ask", "shadow.yaml", **SHADOWS[name])
    asked = "blimp" if name == "a member" else "mmlu"
    own.write_suite({**ASKED, "name": asked, "metric": "acc", "filter": "none", "items": 57 * 67})
    assert any("is called like one of lm-eval" in line for line in lines(own))
    suite = loaded(own)
    catalog = Catalog(suite.tasks_from)
    known = catalog.manager(asked).task_index
    assert not [e.name for e in known.values() if e.yaml_path and own.root in e.yaml_path.parents]
    assert not (own.folder / "ran").exists()


def test_a_file_of_the_current_folder_is_no_task(
    own: OwnTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own.folder / "mine.py").write_text(f"{MARK}{ASK}")
    write_code(own, "mine.ask")
    own.write_suite({**ASKED, "name": "own_next.yaml"})
    monkeypatch.chdir(own.folder)
    assert any("unknown task" in line for line in lines(own, task_code=True))
    suite = loaded(own, task_code=True)
    with pytest.raises(SuiteError, match="unknown task"):
        load_tasks(Catalog(suite.tasks_from), suite, suite.tasks[0])
    assert not (own.folder / "ran").exists()
