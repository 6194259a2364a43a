"""Read a suite, and give it a digest of everything that changes a score.

Margins, tiers and confidence decide what is made of the scores and are no part of the digest: a
baseline stays good when a margin is tightened. The smoke set has a digest of its own.
"""

import dataclasses
import hashlib
from pathlib import Path

from harness import shipped
from harness.artifacts import Suite, TaskSpec, digest_of
from harness.errors import SuiteError
from harness.recipe.names import choose_file, first_double
from harness.recipe.schema import SuiteFile, read_yaml
from harness.recipe.smoke import load_smoke

_JUDGING = {"confidence", "max_truncated", "max_rise", "pooled_margin"}
"""Settings that change no score."""


def load_suite(name: str, *, margin: float | None = None) -> Suite:
    """Read the suite `name` (a shipped one, or a YAML file).

    Args:
        name: `canary`, `nightly` and so on, or a path that ends in .yaml or .yml.
        margin: replaces the margin of every critical and advisory task, as a fraction of 1.

    Raises:
        SuiteError: there is no such suite, or its file is malformed.
    """
    path = choose_file(name, shipped.suites(), "suite", SuiteError)
    file = read_yaml(path, SuiteFile, SuiteError)
    tasks = tuple(dataclasses.replace(task, claim=task.claim or file.claim) for task in file.tasks)
    names = [task.name for task in tasks]
    twice = first_double(names)
    if twice is not None:
        message = f"'{path}' lists the task '{twice}' twice. Remove one."
        raise SuiteError(message)
    if margin is not None:
        if not 0 < margin < 1:
            message = f"margin {margin} is no fraction between 0 and 1. Type --margin 0.02 for 2 %."
            raise SuiteError(message)
        tasks = tuple(dataclasses.replace(task, margin=margin, recovery=None) for task in tasks)
    settings = file.model_dump(exclude={"version", "tasks", "smoke", "claim", "length"})
    score_keys = {k: v for k, v in settings.items() if k not in _JUDGING}
    asked = [_asked(task) for task in tasks]
    digest = digest_of(score_keys, asked, [_digest_of_files(n) for n in names])
    smoke = None if file.smoke is None else load_smoke(file.smoke, beside=path.parent)
    return Suite(**settings, tasks=tasks, length=file.length, digest=digest, smoke=smoke)


def _asked(task: TaskSpec) -> tuple[object, ...]:
    """Return what shapes a task's samples; what is optional counts only where it is used."""
    always = (task.name, task.metric, task.filter, task.items, task.num_fewshot)
    return (*always, task.cluster, task.value_range) if task.cluster or task.value_range else always


def _digest_of_files(task: str) -> str:
    """Return the sha256 of a shipped task's definition and data; empty for lm-eval's own tasks."""
    # The name is no pattern: it may hold what a pattern gives a meaning to.
    known = sorted(shipped.tasks().rglob("*.*"))
    files: list[Path] = [path for path in known if path.name.startswith(f"{task}.")]
    sha = hashlib.sha256()
    for path in files:
        sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest() if files else ""
