"""What is found of NeMo Evaluator, what it is given, and how its end is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness import score
from harness.artifacts import EngineSpec
from harness.errors import EngineError, PrerequisiteError, ScoringError, SuiteError
from harness.nel import Server, evaluate, examine
from harness.preflight import check_has_address
from harness.recipe import load_suite
from tests.nel.conftest import Suite
from tests.serve.stand_in import make_environment
from tests.typed import typed

TOLD = {"version": "0.3.0", "tasks": {}, "mistakes": []}
ROOT = Path(__file__).resolve().parents[2]


def environment(tmp_path: Path, fake: Path, **how: object) -> Path:
    python = make_environment(tmp_path / "env", fake)
    (tmp_path / "env" / "how.json").write_text(json.dumps(how))
    return python


def run(
    suite: Suite, python: Path, into: Path, *, check: Callable[[], None] = lambda: None
) -> Path:
    into.mkdir()
    asked = load_suite(str(suite.file), nel=python)
    server = Server("http://127.0.0.1:9/v1", "model", "a-secret-key", check)
    return evaluate(server, asked, asked.of_nel, into=into)


def test_without_nemo_evaluator_it_is_said_how_to_install_it(suite: Suite) -> None:
    done = typed("suite", "check", suite.file)
    assert done.code == 2
    assert "pip install 'nemo-evaluator[stats]>=0.3'" in done.out + done.err


def test_what_is_named_must_be_a_python(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="neither a Python nor an environment's folder"):
        examine(load_suite(str(suite.file), nel=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"version": None}, "has no NeMo Evaluator"),
        ({"version": "0.2.8"}, "0.3 or later"),
        ({"lacks": "scipy"}, "without scipy"),
    ],
)
def test_an_environment_that_lacks_what_keeps_answers_is_refused(
    suite: Suite, tmp_path: Path, fake: Path, told: dict[str, str | None], said: str
) -> None:
    python = environment(tmp_path, fake, result=TOLD | told)
    with pytest.raises(PrerequisiteError, match=said):
        examine(load_suite(str(suite.file), nel=python))


def test_an_environment_s_folder_may_be_named(suite: Suite, tmp_path: Path, fake: Path) -> None:
    python = environment(tmp_path, fake, result=TOLD)
    told = examine(load_suite(str(suite.file), nel=python.parents[1]))
    assert told.spec.version == "0.3.0"


def test_a_child_that_dies_is_told_by_its_last_words(
    suite: Suite, tmp_path: Path, fake: Path
) -> None:
    python = environment(tmp_path, fake, dies=3)
    with pytest.raises(PrerequisiteError, match="cannot run NeMo Evaluator: the key is None"):
        examine(load_suite(str(suite.file), nel=python))


def test_a_configuration_that_cannot_be_read_is_refused_by_its_line(
    suite: Suite, tmp_path: Path, fake: Path
) -> None:
    python = environment(tmp_path, fake, result=TOLD)
    suite.config.write_text("services: [")
    with pytest.raises(SuiteError, match=r"nel\.yaml"):
        examine(load_suite(str(suite.file), nel=python))


def test_only_variables_that_the_configuration_names_are_passed_on(
    suite: Suite, tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_VALUE", "1")
    monkeypatch.setenv("OTHER_VALUE", "2")
    suite.service["api_key"] = "${MY_VALUE}"
    suite.write()
    run(suite, environment(tmp_path, fake, result={"failed": {}}), tmp_path / "arm")
    given = json.loads((tmp_path / "arm" / "nel" / "environment.json").read_text())
    assert given["MY_VALUE"] == "1"
    assert "OTHER_VALUE" not in given


def test_the_key_is_in_no_file(suite: Suite, tmp_path: Path, fake: Path) -> None:
    run(suite, environment(tmp_path, fake, result={"failed": {}}), tmp_path / "arm")
    files = [path for path in (tmp_path / "arm").rglob("*") if path.is_file()]
    assert any(b"the key is ****" in path.read_bytes() for path in files)
    assert not any(b"a-secret-key" in path.read_bytes() for path in files)


def test_a_task_that_failed_ends_the_run_with_its_reason(
    suite: Suite, tmp_path: Path, fake: Path
) -> None:
    python = environment(tmp_path, fake, result={"failed": {"sums": "no such field"}})
    with pytest.raises(ScoringError, match="could not finish task 'sums': no such field"):
        run(suite, python, tmp_path / "arm")


def test_where_the_server_is_gone_the_evaluation_ends(
    suite: Suite, tmp_path: Path, fake: Path
) -> None:
    def gone() -> None:
        message = "the server ended"
        raise EngineError(message)

    python = environment(tmp_path, fake, seconds=600, result={"failed": {}})
    with pytest.raises(EngineError, match="the server ended"):
        run(suite, python, tmp_path / "arm", check=gone)


RUN = """
import sys
from pathlib import Path
from harness.nel import Server, evaluate
from harness.recipe import load_suite
suite = load_suite(sys.argv[1], nel=Path(sys.argv[2]))
evaluate(Server("u", "m", None, lambda: None), suite, suite.of_nel, into=Path(sys.argv[3]))
"""


def test_killed_with_the_run_nothing_of_it_is_left(
    suite: Suite, tmp_path: Path, fake: Path
) -> None:
    python = environment(tmp_path, fake, seconds=600, result={})
    command = [sys.executable, "-c", RUN, *map(str, (suite.file, python, tmp_path / "arm"))]
    (tmp_path / "arm").mkdir()
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        while not (tmp_path / "arm" / "nel" / "environment.json").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        assert len(below) >= 3, "two keepers and NeMo Evaluator"
        process.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs(below, timeout=60)[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.values.pop("nel"), "names no configuration of NeMo Evaluator"),
        (lambda s: s.values.update(nel="other.yaml"), "is no file"),
        (lambda s: s.task(tool="lm-eval"), "no task says 'tool: nel'"),
    ],
)
def test_a_suite_and_its_configuration_belong_together(
    suite: Suite, change: Callable[[Suite], object], said: str
) -> None:
    change(suite)
    suite.write()
    with pytest.raises(SuiteError, match=said):
        load_suite(str(suite.file))


def test_the_configuration_is_in_the_suite_s_digest_and_where_it_lies_is_not(
    suite: Suite, tmp_path: Path
) -> None:
    first = load_suite(str(suite.file)).digest
    assert load_suite(str(Suite(tmp_path / "elsewhere").file)).digest == first
    suite.service["generation"]["max_tokens"] = 8
    suite.write()
    assert load_suite(str(suite.file)).digest != first


@pytest.mark.usefixtures("lm_eval_index")
def test_its_tasks_are_planned_beside_lm_eval_s(suite: Suite) -> None:
    asked = load_suite(str(suite.file))
    assert set(score.answer_budgets(asked)) == {"sums"}
    assert score.tasks_of_likelihoods(asked) == ()
    assert score.mistakes_of(asked) == ()
    assert [task.items for task in score.part_of(asked, 0.5).tasks] == [10]


def test_the_reference_engine_cannot_be_asked(suite: Suite) -> None:
    asked = load_suite(str(suite.file))
    engine = EngineSpec(name="reference", numerics="deployed", device="cpu", dtype="float32")
    with pytest.raises(SuiteError, match="Type --engine vllm"):
        check_has_address(engine, asked)
