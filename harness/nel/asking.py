"""NeMo Evaluator's own evaluation, of a suite's tasks: what it tells of them, and its run.

Both are one child process under keepers, with a file for what it prints. Its tasks are loaded, and
their code runs, nowhere else.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import doors
from harness.artifacts import NelSpec, Suite, TaskSpec, digest_of
from harness.errors import PrerequisiteError, ScoringError, SuiteError
from harness.kept import blot_out, run_kept
from harness.nel.environment import INSTALL, LEAST, find_nel, named_variables, passed_on
from harness.reading import bounds, read_json_object, read_yaml_file, refused_as

FOLDER = "nel"
"""Of what NeMo Evaluator wrote of an arm."""
LOG_FILE = "nel.log"
_CHILD = Path(__file__).with_name("child.py")
_KEY_VARIABLE = "HARNESS_NEL_KEY"
_MISTAKES = 20


class Told(NamedTuple):
    """What NeMo Evaluator says of the tasks that a suite asks of it."""

    spec: NelSpec
    """With its version, and what decides its answers."""
    mistakes: tuple[SuiteError, ...]


def examine(suite: Suite) -> Told:
    """Ask NeMo Evaluator for the tasks of a suite: each is loaded, and its first item scored.

    Raises:
        PrerequisiteError: it is not installed, or too old.
        SuiteError: its configuration cannot be read.
    """
    spec = _spec(suite)
    python = find_nel(spec.place)
    environment = _environment(spec)
    with tempfile.TemporaryDirectory(prefix="harness-nel-") as name:
        folder = Path(name)
        order = {**_order(suite, suite.of_nel, folder), "least": list(LEAST)}
        told = _run(python, order, environment, folder=folder, meanwhile=_nothing)
        if told is None:
            message = (
                f"'{python}' cannot run NeMo Evaluator: {_last(folder / LOG_FILE)}. {INSTALL}."
            )
            raise PrerequisiteError(message)
    _check_installed(python, told)
    hows = {name: task["how"] for name, task in told["tasks"].items()}
    lines = [
        *map(str, told["mistakes"][:_MISTAKES]),
        *(
            f"task '{name}' may answer with {budget} tokens, which leaves no room for a prompt. "
            f"Make the suite's max_model_len {suite.max_model_len} larger."
            for name, how in hows.items()
            if (budget := how["generation"]["max_tokens"]) >= suite.max_model_len
        ),
    ]
    known = dataclasses.replace(
        spec,
        version=str(told["version"]),
        digest=digest_of(told["tasks"]),
        chats=any(how["protocol"] == "chat_completions" for how in hows.values()),
    )
    return Told(known, tuple(map(SuiteError, lines)))


class Server(NamedTuple):
    """Whom NeMo Evaluator asks."""

    url: str
    """Up to `/v1`."""
    model: str
    """Name under which it knows the model."""
    key: str | None
    """That requests bring."""
    check: Callable[[], None]
    """Called again and again; what it raises ends the evaluation."""


def evaluate(server: Server, suite: Suite, tasks: Sequence[TaskSpec], *, into: Path) -> Path:
    """Let NeMo Evaluator ask tasks of a server, and return the folder with its bundles.

    Args:
        server: that is asked.
        suite: examined before.
        tasks: those that are asked.
        into: folder of the arm.

    Raises:
        ScoringError: NeMo Evaluator failed.
    """
    spec, folder = _spec(suite), into.resolve() / FOLDER
    doors.make_anew(folder)
    bundles = folder / "bundles"
    where = {"folder": str(bundles), "url": server.url, "model": server.model}
    order = {**_order(suite, tasks, folder), **where}
    environment = {**_environment(spec), "XDG_DATA_HOME": str(folder / "index")}
    if server.key is not None:
        environment[_KEY_VARIABLE] = server.key
    python = find_nel(spec.place)
    try:
        done = _run(python, order, environment, folder=folder, meanwhile=server.check)
    finally:
        _blot_out(server.key, folder)
    log = folder / LOG_FILE
    if done is None:
        message = f"NeMo Evaluator did not come to its end: {_last(log)}. See '{log}'."
        raise ScoringError(message)
    for name, why in done["failed"].items():
        message = f"NeMo Evaluator could not finish task '{name}': {why}. See '{log}'."
        raise ScoringError(message)
    return bundles


def _blot_out(key: str | None, folder: Path) -> None:
    """Leave no key in what NeMo Evaluator, or a benchmark, wrote."""
    for file in folder.rglob("*") if key else ():
        if key and file.is_file() and not file.is_symlink():
            blot_out(key, file)


def _spec(suite: Suite) -> NelSpec:
    if suite.nel is None:
        raise AssertionError  # tasks of NeMo Evaluator come with its configuration
    return suite.nel


def _order(suite: Suite, tasks: Sequence[TaskSpec], folder: Path) -> dict[str, Any]:
    asked = {
        task.asked: {
            "name": task.asked,
            "items": task.items,
            "repeats": task.repeats,
            "temperature": task.temperature,
            "top_p": task.top_p,
            "num_fewshot": task.num_fewshot,
            "cluster": task.cluster,
            "metrics": [other.metric for other in tasks if other.asked == task.asked],
        }
        for task in tasks
    }
    return {
        "config": _spec(suite).config,
        "task_code": suite.task_code,
        "tasks": asked,
        "result": str(folder / "result.json"),
        "file_bytes": bounds.LINES_BYTES,
    }


def _environment(spec: NelSpec) -> dict[str, str]:
    """Return the child's environment.

    Raises:
        SuiteError: the configuration cannot be read.
    """
    path = Path(spec.config)
    with refused_as(SuiteError, "Mend NeMo Evaluator's configuration."):
        read_yaml_file(path)
    return passed_on(named_variables(path.read_text(encoding="utf-8")))


def _check_installed(python: Path, told: Mapping[str, Any]) -> None:
    """Refuse a NeMo Evaluator that is missing, in part too, or that writes no bundles.

    Raises:
        PrerequisiteError: with its version.
    """
    version = told["version"]
    if version is None:
        message = f"'{python}' has no NeMo Evaluator. {INSTALL}."
        raise PrerequisiteError(message)
    numbers = tuple(int(part) for part in str(version).split(".")[:2] if part.isdecimal())
    if numbers < LEAST:
        least = ".".join(map(str, LEAST))
        message = (
            f"'{python}' has NeMo Evaluator {version}, which asks from containers and keeps no "
            f"answers of its own: {least} or later does. {INSTALL}."
        )
        raise PrerequisiteError(message)
    if "lacks" in told:
        message = (
            f"'{python}' has NeMo Evaluator without {told['lacks']}, which it needs. {INSTALL}."
        )
        raise PrerequisiteError(message)


def _run(
    python: Path,
    order: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    folder: Path,
    meanwhile: Callable[[], None],
) -> Mapping[str, Any] | None:
    """Run the child to its end; return what it found, None where it failed."""
    file, log = folder / "order.json", folder / LOG_FILE
    doors.write_atomically(file, json.dumps(order))
    command = (str(python), "-I", str(_CHILD), str(file))
    # A benchmark's own files are named from where the configuration lies.
    beside = Path(order["config"]).parent
    status = run_kept(command, environment, folder=beside, log=log, meanwhile=meanwhile)
    result = Path(order["result"])
    return read_json_object(result) if status == 0 and result.is_file() else None


def _nothing() -> None:
    pass


def _last(log: Path) -> str:
    """Return the last words of a log."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
