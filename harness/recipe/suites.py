"""Read a suite, and give it a digest of everything that changes a score.

Margins, tiers and confidence decide what is made of the scores and are no part of the digest: a
baseline stays good when a margin is tightened. The smoke set has a digest of its own. Of own tasks
their files are in the digest, and not where the folder lies.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from harness import shipped
from harness.artifacts import NelSpec, Suite, TaskSpec, Tool, digest_of
from harness.doors import expanded
from harness.errors import SuiteError
from harness.recipe.names import choose_file, first_double
from harness.recipe.schema import SuiteFile, read_yaml
from harness.recipe.smoke import load_smoke
from harness.request import Request
from harness.tasks import read_own_tasks

_JUDGING = {"confidence", "max_truncated", "max_rise", "pooled_margin", "signoff"}
"""Settings that change no score."""
_ASKING = (
    *("items", "num_fewshot", "repeats", "temperature", "top_p", "top_k", "thinking_budget"),
)
"""Of a task, what decides its requests."""


def load_suite(
    name: str,
    *,
    margin: float | None = None,
    tasks: Sequence[Path] = (),
    task_code: bool = False,
    nel: Path | None = None,
) -> Suite:
    """Read the suite `name` (a shipped one, or a YAML file).

    Args:
        name: `canary`, `nightly` and so on, or a path that ends in .yaml or .yml.
        margin: replaces the margin of every critical and advisory task, as a fraction of 1.
        tasks: folders of own lm-eval tasks, beside those that the file names.
        task_code: whether Python that own tasks name may be run.
        nel: environment that holds NeMo Evaluator.

    Raises:
        SuiteError: there is no such suite, or its file is malformed; a folder of tasks is none.
    """
    path = choose_file(name, shipped.suites(), "suite", SuiteError)
    file = read_yaml(path, SuiteFile, SuiteError)
    asked = tuple(dataclasses.replace(task, claim=task.claim or file.claim) for task in file.tasks)
    asked = _told_apart(asked)
    twice = first_double([task.name for task in asked])
    if twice is not None:
        message = f"'{path}' lists the task '{twice}' twice. Remove one."
        raise SuiteError(message)
    _check_asked_once(path, asked)
    asked = asked if margin is None else _with_margin(asked, margin)
    settings = file.model_dump(
        exclude={"version", "tasks", "smoke", "claim", "tasks_from", "length", "speed", "nel"}
    )
    score_keys = {k: v for k, v in settings.items() if k not in _JUDGING}
    if file.thinking:  # scores of thoughts and answers that shared one budget are others
        score_keys["budgets"] = "apart"
    folders = _folders([*(path.parent / expanded(f) for f in file.tasks_from), *tasks])
    own = read_own_tasks(folders)
    spec = _nel(path, file.nel, asked, place=nel)
    files = [
        _digest_of_nel(spec)
        if spec is not None and task.tool is Tool.NEL
        else own.digest_of(task.asked) or _digest_of_files(task.asked)
        for task in asked
    ]
    digest = digest_of(score_keys, [_asked(task) for task in asked], files)
    smoke = None if file.smoke is None else load_smoke(file.smoke, beside=path.parent)
    settings["signoff"] = file.signoff and margin is None and not tasks
    return Suite(
        **settings,
        tasks=asked,
        length=file.length,
        speed=file.speed,
        digest=digest,
        smoke=smoke,
        tasks_from=tuple(map(str, folders)),
        task_code=task_code,
        nel=spec,
    )


def suite_of(request: Request, name: str) -> Suite:
    """Return the suite `name` with what was typed of margins and of own tasks.

    Raises:
        SuiteError: as load_suite.
    """
    return load_suite(
        name,
        margin=request.margin,
        tasks=request.tasks,
        task_code=request.task_code,
        nel=request.nel,
    )


def _nel(
    path: Path, named: str | None, tasks: Sequence[TaskSpec], *, place: Path | None
) -> NelSpec | None:
    """Return NeMo Evaluator's part of a suite.

    Raises:
        SuiteError: its configuration is missing, or no task is its own.
    """
    theirs = [task.name for task in tasks if task.tool is Tool.NEL]
    if named is None:
        if theirs:
            message = (
                f"'{path}' lists '{theirs[0]}' with tool nel, and names no configuration of NeMo "
                "Evaluator. Add 'nel: FILE'."
            )
            raise SuiteError(message)
        return None
    config = (path.parent / expanded(named)).resolve()
    if not theirs:
        message = (
            f"'{path}' names '{named}' of NeMo Evaluator, and no task says 'tool: nel'. List those "
            "of its benchmarks that count, each with its items and margin."
        )
        raise SuiteError(message)
    if not config.is_file():
        message = f"'{path}', nel: '{config}' is no file. Name NeMo Evaluator's configuration."
        raise SuiteError(message)
    return NelSpec(config=str(config), place=os.fspath(place) if place else None)


def _digest_of_nel(spec: NelSpec) -> str:
    """Return the sha256 of NeMo Evaluator's configuration.

    What it names, and which items there are, is known when NeMo Evaluator has been asked.
    """
    return hashlib.sha256(Path(spec.config).read_bytes()).hexdigest()


def _with_margin(tasks: tuple[TaskSpec, ...], margin: float) -> tuple[TaskSpec, ...]:
    if not 0 < margin < 1:
        message = f"margin {margin} is no fraction between 0 and 1. Type --margin 0.02 for 2 %."
        raise SuiteError(message)
    return tuple(
        # How much a perplexity may rise is no margin in points.
        task
        if task.relative_margin is not None
        else dataclasses.replace(task, margin=margin, recovery=None)
        for task in tasks
    )


def _folders(named: Sequence[Path]) -> list[Path]:
    """Return each folder once, by where it really is."""
    return list(dict.fromkeys(expanded(folder).resolve() for folder in named))


def _told_apart(tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    """Return the tasks with names of their own: those listed twice are named by what differs."""
    return tuple(_named(task, [t for t in tasks if t.name == task.name]) for task in tasks)


def _named(task: TaskSpec, alike: list[TaskSpec]) -> TaskSpec:
    differing = [
        getattr(task, field)
        for field in ("metric", "filter")
        if len({getattr(one, field) for one in alike}) > 1
    ]
    if not differing:
        return task
    name = f"{task.name}({'+'.join(differing)})"
    return dataclasses.replace(task, name=name, task=task.asked)


def _check_asked_once(path: Path, tasks: tuple[TaskSpec, ...]) -> None:
    """Refuse metrics of one task that want it asked in two ways.

    Raises:
        SuiteError: with what differs.
    """
    first: dict[tuple[Tool, str], TaskSpec] = {}
    for task in tasks:
        other = first.setdefault((task.tool, task.asked), task)
        for field in _ASKING:
            if getattr(task, field) != getattr(other, field):
                message = (
                    f"'{path}' lists the task '{task.asked}' with {field} "
                    f"{getattr(other, field)} and {getattr(task, field)}. It is asked once for all "
                    f"its metrics: give it one {field}."
                )
                raise SuiteError(message)


def _asked(task: TaskSpec) -> tuple[object, ...]:
    """Return what shapes a task's samples; what is optional counts only where it is used."""
    asked: tuple[object, ...] = (
        task.asked,
        task.metric,
        task.filter,
        task.items,
        task.num_fewshot,
    )
    if task.cluster or task.value_range:
        asked += (task.cluster, task.value_range)
    if task.is_drawn:
        asked += (task.repeats, task.temperature, task.top_p, task.top_k)
    if task.thinking_budget is not None:
        asked += (("thinking_budget", task.thinking_budget),)
    if task.tool is not Tool.LM_EVAL:
        asked += (task.tool,)
    return asked


def _digest_of_files(task: str) -> str:
    """Return the sha256 of a shipped task's definition and data; empty for lm-eval's own tasks."""
    # The name is no pattern: it may hold what a pattern gives a meaning to.
    known = sorted(shipped.tasks().rglob("*.*"))
    files: list[Path] = [path for path in known if path.name.startswith(f"{task}.")]
    sha = hashlib.sha256()
    for path in files:
        sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest() if files else ""
