"""What would stop a run after hours, or make its ending useless, is found before it starts.

The command line runs in this process: nothing but exit codes and texts is looked at.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from harness import runs, shipped
from harness.arms import CandidateOrder
from harness.arms import candidate as arm
from harness.artifacts import EngineSpec, Failure, RunRecord, Trial, Verdict
from harness.cli import app, commands, judging, serving, text
from harness.errors import (
    EngineError,
    ExitCode,
    ReasonCode,
    RejectedError,
    StageError,
)
from harness.models import open_source
from harness.recipe import Request, load_suite

E2E = ("e2e", "--model", "canary", "--qformat", "nvfp4", "--engine", "reference")


class Ended(NamedTuple):
    code: int
    out: str
    line: str


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "baselines"))


def run(*arguments: object) -> Ended:
    """Run a command that is refused; return its one line."""
    done = CliRunner().invoke(app, ["--quiet", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    lines = [line for line in done.stderr.splitlines() if line.startswith("harness: ")]
    assert len(lines) == 1, done.stderr
    return Ended(done.exit_code, done.stdout, lines[0])


def refused(*arguments: object) -> str:
    done = run(*arguments)
    assert done.code == 2, done.line
    assert list(Path().iterdir()) == []
    return done.line


def a_suite(folder: Path, *, task: dict[str, Any] | None = None, **changes: Any) -> Path:  # noqa: ANN401 - as YAML has it
    """Write a suite of one of the canary's tasks, with changes."""
    values = yaml.safe_load((shipped.suites() / "canary.yaml").read_text(encoding="utf-8"))
    critical = next(t for t in values["tasks"] if t["tier"] == "critical")
    critical |= {"items": 60, "margin": 0.2} | (task or {})
    values |= {"name": "own", "tasks": [critical], "pooled_margin": None, "smoke": None} | changes
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "task", [{"margin": 0.99}, {"chance": 1.0}, {"chance": 0.9}, {"margin": 0.5, "chance": 0.5}]
)
def test_a_margin_within_which_guessing_lies_is_refused_by_the_plan_too(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    line = refused(*E2E, "--suite", a_suite(tmp_path, task=task), "--plan")
    assert "a candidate which guesses would fail" in line


@pytest.mark.parametrize("margin", ["0", "1", "-0.1", "nan", "inf", "1e400", "2"])
def test_a_margin_that_is_no_fraction_is_refused(margin: str) -> None:
    assert "margin" in refused(*E2E, "--margin", margin, "--plan")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../../escaped"},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "x" * 300},
        {"seed": -1},
        {"seed": 2**70},
        {"batch_size": 2**70},
        {"confidence": float("nan")},
        {"max_truncated": float("inf")},
        {"task": {"name": "../canary_add"}},
        {"task": {"name": "canary_*"}},
        {"task": {"items": 10**12}},
        {"task": {"margin": float("nan")}},
        {"task": {"design_effect": float("inf")}},
    ],
    ids=str,
)
def test_a_number_or_a_name_of_a_suite_that_means_nothing_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert "own.yaml" in refused(*E2E, "--suite", a_suite(tmp_path, **changes), "--plan")


@pytest.mark.parametrize("name", ["../../escaped", "/x", "", "a b", "x" * 65, "a\0b"])
def test_a_recipes_name_stays_in_the_folder_of_runs(tmp_path: Path, name: str) -> None:
    recipe = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | {"name": name}), encoding="utf-8")
    line = refused("e2e", "--model", "canary", "--recipe", path, "--engine", "reference")
    assert "name" in line


@pytest.mark.parametrize(
    "options",
    [
        ("--ranks", "1000000"),
        ("--engine-arg", "seed=1"),
        ("--tensor-parallel-size", "2"),
        ("--vllm", "/nowhere"),
        ("--image", "some/image"),
    ],
    ids=" ".join,
)
def test_what_would_be_ignored_or_is_not_there_is_refused_by_the_plan_too(
    options: tuple[str, ...],
) -> None:
    assert " ".join(options) in refused(*E2E, *options, "--plan")


def test_more_ranks_than_batches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.preflight.engine.num_cores", lambda: 64)
    line = refused(*E2E, "--ranks", "64", "--calib-size", "16", "--plan")
    assert "each process takes one at least" in line


def test_a_store_that_cannot_be_written_is_found_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "file" / "store"))
    assert "HARNESS_BASELINES" in refused(*E2E)


@pytest.mark.parametrize("where", ["model", "model/run", "."])
def test_a_run_directory_in_or_around_what_is_read_is_refused(tmp_path: Path, where: str) -> None:
    model = Path(shutil.copytree(shipped.canary() / "model", tmp_path / "model"))
    before = sorted(tmp_path.rglob("*"))
    run_dir = ("--run-dir", tmp_path / where)
    assert "is read and stays as it is" in refused(*E2E, "--baseline", model, *run_dir)
    assert "is read and stays as it is" in refused("gate", model, "--baseline", "canary", *run_dir)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_a_run_directory_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "file":
        path.touch()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        import os  # noqa: PLC0415 - this kind alone

        os.mkfifo(path)
    assert str(path) in refused(*E2E, "--run-dir", path)


@pytest.fixture
def own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped tasks, to be spoiled."""
    tasks = Path(shutil.copytree(shipped.tasks(), tmp_path / "tasks"))
    monkeypatch.setattr(shipped, "tasks", lambda: tasks)
    return tasks


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ no_such_field }}", "no_such_field"),
        ("{% if %}", "Template"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 'x' + 1 }}", "TypeError"),
        ("{{ prompt.nothing.more }}", "nothing"),
    ],
)
def test_a_task_whose_prompts_cannot_be_built_is_named(
    tmp_path: Path, own_tasks: Path, template: str, words: str
) -> None:
    suite = a_suite(tmp_path)
    name = yaml.safe_load(suite.read_text())["tasks"][0]["name"]
    file = next(own_tasks.rglob(f"{name}.yaml"))
    values = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(values | {"doc_to_text": template}))
    line = refused(*E2E, "--suite", suite, "--plan")
    assert f"'{name}'" in line
    assert words in line


@pytest.mark.parametrize("lost", ["chat template", "tokenizer"])
def test_a_model_that_cannot_be_asked_is_refused(tmp_path: Path, lost: str) -> None:
    model = Path(shutil.copytree(shipped.canary() / "model", tmp_path / "model"))
    if lost == "tokenizer":
        (model / "tokenizer.json").unlink()
    else:
        (model / "chat_template.jinja").unlink(missing_ok=True)
        config = model / "tokenizer_config.json"
        values = json.loads(config.read_text())
        values.pop("chat_template", None)
        config.write_text(json.dumps(values))
    suite = a_suite(tmp_path, apply_chat_template=True)
    arguments = ("e2e", "--model", model, "--qformat", "nvfp4", "--engine", "reference")
    line = refused(*arguments, "--suite", suite, "--calib-data", "canary", "--plan")
    assert f"has no {lost}" in line


def test_canary_is_ambiguous_where_a_folder_of_that_name_lies() -> None:
    Path("canary").mkdir()
    done = run(*E2E, "--plan")
    assert done.code == 2
    assert "./canary" in done.line
    assert run("gate", "x", "--baseline", "canary").code == 2


def test_arms_of_an_own_suite_say_how_to_name_its_file() -> None:
    with pytest.raises(Exception, match="Type --suite FILE"):
        judging._suite_of("own", Request(model="canary"))  # noqa: SLF001 - the one function
    with pytest.raises(Exception, match="unknown suite 'nightli'"):
        judging._suite_of("own", Request(model="canary", suite="nightli"))  # noqa: SLF001


def test_what_a_plan_finds_is_never_a_failed_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_big(*_: object, **__: object) -> None:
        message = "one layer does not fit"
        raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)

    monkeypatch.setattr(commands, "preflight", too_big)
    done = run(*E2E, "--plan", "--json")
    assert done.code == 2
    assert json.loads(done.out)["reason_codes"] == ["out-of-memory"]


@pytest.mark.parametrize("reason", [ReasonCode.SCALE_MISSING, ReasonCode.SCALE_MISMATCH])
def test_scales_that_are_lost_reject_the_candidate_on_every_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: ReasonCode
) -> None:
    @contextmanager
    def no_scales(*_: object, **__: object) -> Iterator[None]:
        message = "'a.input_scale' is missing"
        raise EngineError(message, reason=reason)
        yield

    monkeypatch.setattr(arm, "serve", no_scales)
    engine = EngineSpec(
        name="reference", numerics="declared", device="cpu", dtype="float32", max_model_len=64
    )
    model = shipped.canary() / "model"
    order = CandidateOrder(
        engine=engine,
        folder=model,
        digest=arm_digest(model),
        suite=load_suite("canary"),
        into=tmp_path / "run",
    )
    with arm.Candidate(order) as candidate, pytest.raises(RejectedError) as caught:
        candidate.score()
    assert caught.value.reason is reason


def arm_digest(model: Path) -> str:
    from harness.models import digest_folder  # noqa: PLC0415 - imports torch

    return digest_folder(model)


def test_a_server_takes_what_its_model_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("canary")
    assert source.max_positions == 1024
    served: list[int | None] = []

    def no_server(engine: EngineSpec, *_: object, **__: object) -> None:
        served.append(engine.max_model_len)
        raise KeyboardInterrupt

    def prepare(*_: object) -> tuple[EngineSpec, object]:
        engine = EngineSpec(
            name="vllm", numerics="deployed", device="cpu", dtype="auto", max_model_len=4096
        )
        return engine, source

    monkeypatch.setattr(serving, "serve", no_server)
    monkeypatch.setattr(serving, "_prepare", prepare)
    for typed in (None, 512):
        with pytest.raises(KeyboardInterrupt):
            serving.serve_until_interrupted(Request(model="canary"), typed, None, as_json=False)
    assert served == [1024, 512]


def record(**changes: object) -> RunRecord:
    recipe = Trial(
        name="gate",
        model="canary",
        revision=None,
        checkpoint="/c",
        engine=EngineSpec(
            name="reference", numerics="declared", device="cpu", dtype="float32", max_model_len=64
        ),
        suite=load_suite("canary"),
        skip_verify=False,
        waivers=(),
    )
    made = RunRecord(recipe=recipe, versions={}, stage_seconds={}, serve_command="vllm serve /c")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


@pytest.mark.parametrize(
    ("retryable", "words"),
    [(True, "next: type the same command again"), (False, "remove the cause")],
)
def test_typing_the_command_again_is_said_to_help_where_it_does(
    *, retryable: bool, words: str
) -> None:
    failure = Failure(
        stage="verify",
        message="no",
        reason_code=ReasonCode.ENGINE_FAILED,
        retryable=retryable,
        exit_code=ExitCode.STAGE_FAILED,
    )
    lines = text.of_ending(Path("run"), record(failure=failure), "")
    assert words in lines
    assert "vllm serve" not in lines


def test_a_run_without_go_prints_no_line_to_deploy_it_with() -> None:
    verdict = Verdict.__new__(Verdict)
    for field in dataclasses.fields(Verdict):
        object.__setattr__(verdict, field.name, ())
    object.__setattr__(verdict, "decision", "NO-GO")
    object.__setattr__(verdict, "summary", "")
    object.__setattr__(verdict, "checkpoint_digest", None)
    assert "vllm serve" not in text.of_ending(Path("run"), record(verdict=verdict), "")


def test_the_default_run_directory_has_a_plain_name() -> None:
    assert runs.plain_name("models/..") == "model"
    assert runs.plain_name("/m/Qwen 3\n") == "Qwen_3_"
    assert len(runs.plain_name("x" * 5000)) == 100


@pytest.mark.parametrize("junit", ["/dev/stdout", "/dev/null", ".", "no/such/folder/file.xml"])
def test_where_findings_are_written_is_asked_before_they_are_made(junit: str) -> None:
    assert junit in refused("verify", shipped.canary() / "model", "--junit", junit)
