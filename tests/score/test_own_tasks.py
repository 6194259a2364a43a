"""Own folders of tasks: found from the suite or the command line, and all of them in the digest."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.artifacts import Suite
from harness.errors import SuiteError
from harness.recipe import load_suite
from harness.score import mistakes_of
from harness.score.sources import Catalog
from tests.own_tasks import ASKED, GENERATED, OwnTasks


@pytest.fixture
def own(tmp_path: Path) -> OwnTasks:
    return OwnTasks(tmp_path / "mine")


def lines(suite: Suite) -> list[str]:
    return [str(error) for error in mistakes_of(suite)]


def test_a_suite_names_folders_of_tasks_from_where_it_lies(own: OwnTasks) -> None:
    suite = load_suite(str(own.suite))
    assert suite.tasks_from == (str(own.folder),)
    assert lines(suite) == []


def test_folders_that_are_typed_do_the_same(own: OwnTasks) -> None:
    named = load_suite(str(own.suite))
    own.write_suite(tasks_from=None)
    typed = load_suite(str(own.suite), tasks=(own.folder,))
    assert typed.digest == named.digest
    assert lines(typed) == []


def test_a_folder_that_is_named_and_typed_counts_once(own: OwnTasks) -> None:
    suite = load_suite(str(own.suite), tasks=(own.folder / "..", own.folder / "../tasks"))
    assert suite.tasks_from == (str(own.folder), str(own.root))
    assert lines(suite) == []


@pytest.mark.parametrize("file", ["own_next.yaml", "own_next.jsonl", "shots.jsonl"])
def test_a_changed_file_of_a_task_is_another_suite(own: OwnTasks, file: str) -> None:
    before = load_suite(str(own.suite)).digest
    with (own.folder / file).open("a") as opened:
        opened.write("\n")
    assert load_suite(str(own.suite)).digest != before


def test_a_changed_file_that_is_included_is_another_suite(own: OwnTasks) -> None:
    own.write_task({"task": "own_next", "include": "_base.yaml"})
    base = own.write_task(GENERATED, "_base.yaml", task=None)
    before = load_suite(str(own.suite))
    assert lines(before) == []
    base.write_text(base.read_text() + "# another\n")
    assert load_suite(str(own.suite)).digest != before.digest


def test_a_moved_folder_is_the_same_suite(own: OwnTasks) -> None:
    before = load_suite(str(own.suite)).digest
    moved = shutil.move(own.root, own.root.with_name("moved"))
    assert load_suite(f"{moved}/mine.yaml").digest == before


def test_another_file_in_the_folder_leaves_the_suite_as_it_is(own: OwnTasks) -> None:
    before = load_suite(str(own.suite)).digest
    own.write_task(GENERATED, "other.yaml", task="other")
    assert load_suite(str(own.suite)).digest == before


def test_a_group_of_own_tasks_gets_its_members_items(own: OwnTasks) -> None:
    own.write_task(GENERATED, "second.yaml", task="own_second")
    own.write_task({"task": ["own_next", "own_second"], "group": "own_both"}, "both.yaml")
    suite = load_suite(str(own.write_suite({**ASKED, "name": "own_both", "items": 120})))
    assert lines(suite) == []
    assert Catalog(suite.tasks_from).leaves("own_both") == ("own_next", "own_second")


def test_a_tag_of_own_tasks_is_those_tasks(own: OwnTasks) -> None:
    own.write_task(GENERATED, tag="sums")
    own.write_task(GENERATED, "second.yaml", task="own_second", tag="sums")
    suite = load_suite(str(own.write_suite({**ASKED, "name": "sums", "items": 120})))
    assert lines(suite) == []


@pytest.mark.parametrize("kind", ["csv", "parquet", "list"])
def test_items_are_read_from_other_files_too(own: OwnTasks, kind: str) -> None:
    table = pd.DataFrame(own.items)
    path = own.folder / ("items.json" if kind == "list" else f"items.{kind}")
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records")
    files = {"data_files": {"test": path.name}}
    builder = "json" if kind == "list" else kind
    own.write_task(GENERATED, dataset_path=builder, dataset_kwargs=files, fewshot_split=None)
    suite = load_suite(str(own.write_suite(ASKED)))
    assert lines(suite) == []


def test_a_folder_that_is_not_there_is_refused(own: OwnTasks) -> None:
    own.write_suite(tasks_from=["taks"])
    with pytest.raises(SuiteError, match="taks' is not there"):
        load_suite(str(own.suite))


def test_a_folder_without_a_task_is_refused(own: OwnTasks) -> None:
    (own.root / "empty").mkdir()
    with pytest.raises(SuiteError, match="no task is defined in"):
        load_suite(str(own.suite), tasks=(own.root / "empty",))


def test_two_folders_with_a_task_of_one_name_are_refused(own: OwnTasks) -> None:
    other = shutil.copytree(own.folder, own.root / "other")
    (line, *_) = lines(load_suite(str(own.suite), tasks=(other,)))
    assert "the task 'own_next' is defined twice" in line
    assert str(other / "own_next.yaml") in line


@pytest.mark.parametrize("theirs", ["canary_add", "gsm8k", "mmlu_pro", "arc_easy"])
def test_an_own_task_that_is_called_like_another_is_refused(own: OwnTasks, theirs: str) -> None:
    own.write_task(GENERATED, task=theirs)
    (line,) = lines(load_suite(str(own.write_suite({**ASKED, "name": theirs}))))
    assert f"the own task '{theirs}'" in line
    assert "Rename it" in line


MARK = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"


def test_python_of_a_folder_does_not_run_unless_it_is_allowed(own: OwnTasks) -> None:
    code = own.folder / "mine.py"
    code.write_text(f"{MARK}def ask(doc):\n    return doc['prompt']\n")
    path = own.write_task(GENERATED)
    path.write_text(path.read_text().replace("'{{prompt}}'", "!function mine.ask"))
    (line,) = lines(load_suite(str(own.suite)))
    assert "doc_to_text: !function mine.ask" in line
    assert "--task-code" in line
    assert not (own.folder / "ran").exists()
    allowed = load_suite(str(own.suite), task_code=True)
    assert lines(allowed) == []
    assert (own.folder / "ran").exists()
    code.write_text(code.read_text() + "# another\n")
    assert load_suite(str(own.suite)).digest != allowed.digest


def test_a_template_is_no_way_to_run_python(own: OwnTasks) -> None:
    own.write_task(
        GENERATED, doc_to_text="{{ ''.__class__.__mro__[1].__subclasses__() }}{{prompt}}"
    )
    (line, *_) = lines(load_suite(str(own.suite)))
    assert "doc_to_text" in line
    assert "unsafe" in line


def test_a_suite_cannot_allow_its_own_python(own: OwnTasks) -> None:
    own.write_suite(task_code=True)
    with pytest.raises(SuiteError, match="task_code"):
        load_suite(str(own.suite))
