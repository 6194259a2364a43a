"""A task made ready to be asked: loaded, seeded, its prompts built.

lm-eval would do this inside `evaluate`, in one go with asking and with making scores. It is taken
out, so that the next task is made ready, and sent to a server, while the server answers this one.

Everything that a task may draw from is seeded before it is loaded, for some (gpqa) shuffle their
options there: both arms must see the same.
"""

import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import jinja2
import lm_eval.api.task
import numpy as np
import torch

from harness.artifacts import Suite, TaskSpec
from harness.errors import EngineError, ReasonCode, ScoringError, SuiteError, UsageError
from harness.score.asking import THINKING_BUDGET
from harness.score.definitions import refusals_to_load
from harness.score.local_data import files_read_here
from harness.score.shares import limit_of
from harness.score.sources import Catalog, quiet_lm_eval
from harness.score.templating import render_in_sandbox

Tasks = Mapping[str, Any]
"""lm-eval's task objects by name: one, or the members of a group."""
_HOST_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""torch raises a plain RuntimeError with this name when the host has no memory left."""


def prepare(catalog: Catalog, suite: Suite, spec: TaskSpec, lm: Any) -> Tasks:  # noqa: ANN401 -- lm-eval has no types
    """Return the tasks that `spec` stands for, their requests built.

    Raises:
        SuiteError: the data cannot be had, lacks the field that items are grouped by, or is not
            what the task's templates take.
    """
    return _build(catalog, suite, spec, lm.apply_chat_template)


def prompts_of(
    catalog: Catalog, suite: Suite, spec: TaskSpec, render_chat: Callable[..., str]
) -> Tasks:
    """Return the tasks that `spec` stands for with their requests, for a look at these.

    Raises:
        SuiteError: as prepare().
        ModelError: a chat cannot be rendered.
    """
    return _build(catalog, suite, spec, render_chat)


def load_tasks(catalog: Catalog, suite: Suite, spec: TaskSpec) -> Tasks:
    """Return the tasks that `spec` stands for, without requests.

    Raises:
        SuiteError: their data cannot be had.
    """
    _set_seeds(suite.seed)
    _refuse_code(catalog, suite, spec)
    with _named_where_it_fails(spec), scoring(spec.name):
        return _load_tasks(catalog, spec)


def try_prompts(catalog: Catalog, suite: Suite, spec: TaskSpec) -> None:
    """Build the prompts of a task whose items lie here, or that is own; chats are not rendered.

    Raises:
        SuiteError: with the task and what its template lacks.
    """
    leaves = catalog.leaves(spec.asked)
    if catalog.own.of(spec.asked) or all(catalog.is_local(leaf) for leaf in leaves):
        _build(catalog, suite, spec, _unrendered)


def _unrendered(messages: list[dict[str, str]], **_: object) -> str:
    """Stand in for a model's chat template."""
    return "\n".join(str(message.get("content")) for message in messages)


def _build(
    catalog: Catalog, suite: Suite, spec: TaskSpec, render_chat: Callable[..., str]
) -> Tasks:
    _set_seeds(suite.seed)
    _refuse_code(catalog, suite, spec)
    with _named_where_it_fails(spec), scoring(spec.asked):
        tasks = _load_tasks(catalog, spec)
        for task in tasks.values():
            task.set_fewshot_seed(seed=suite.seed)
            _set_drawing(task, spec)
            _set_budget(task, suite, spec)
            task.build_all_requests(
                limit=items_of_each(spec, tasks),
                apply_chat_template=suite.apply_chat_template,
                fewshot_as_multiturn=suite.apply_chat_template,
                chat_template=render_chat if suite.apply_chat_template else None,
            )
            task.build_all_requests = _keep_requests
    if spec.cluster:
        _check_cluster(spec, tasks)
    return tasks


def _refuse_code(catalog: Catalog, suite: Suite, spec: TaskSpec) -> None:
    """Refuse Python of own tasks that nobody allowed, which would run as they are loaded."""
    if catalog.entry(spec.asked) is None:  # lm-eval would take it for the path of a file
        message = f"unknown task: '{spec.asked}'. Name a task, group or tag."
        raise SuiteError(message)
    for definition in catalog.own.of(spec.asked):
        for what in refusals_to_load(definition, task_code=suite.task_code):
            message = f"'{definition.name}' ('{definition.file}') {what}"
            raise SuiteError(message)


def _set_drawing(task: Any, spec: TaskSpec) -> None:  # noqa: ANN401 -- lm-eval has no types
    """Let answers be drawn as the suite says; each repeat is asked for, and scored, by itself."""
    if not spec.is_drawn:
        return
    how = {"do_sample": True, "temperature": spec.temperature, "top_p": spec.top_p}
    arguments = {**(task.get_config("generation_kwargs") or {}), **how, "top_k": spec.top_k}
    arguments.pop("min_p", None)
    task.set_config(key="generation_kwargs", value=arguments)
    task.set_config(key="repeats", value=1)


def _set_budget(task: Any, suite: Suite, spec: TaskSpec) -> None:  # noqa: ANN401 -- lm-eval has no types
    """Let each request of a model that thinks carry its task's budget for that."""
    if suite.thinking:
        arguments = dict(task.get_config("generation_kwargs") or {})
        budget = {THINKING_BUDGET: suite.thinking_budget_of(spec)}
        task.set_config(key="generation_kwargs", value=arguments | budget)


@contextmanager
def _named_where_it_fails(spec: TaskSpec) -> Iterator[None]:
    """Turn what templates raise, which may be anything, into one line with the task's name.

    Raises:
        SuiteError: the prompts cannot be built; no second try would build them.
    """
    try:
        yield
    except (UsageError, EngineError):
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, ScoringError) else error
        kind, said = type(cause).__name__, _first_line(cause or error)
        message = (
            f"the prompts of task '{spec.name}' cannot be built ({kind}: {said}). Correct its "
            "templates, or the fields of its items."
        )
        raise SuiteError(message) from error


def _check_cluster(spec: TaskSpec, tasks: Tasks) -> None:
    """Refuse a field that some item does not have, before any item is asked."""
    for task in tasks.values():
        for document in (instance.doc for instance in task.instances):
            if spec.cluster not in document:
                message = (
                    f"task '{spec.name}' has an item without the field '{spec.cluster}' to group "
                    f"it by, only {', '.join(sorted(document))}. Correct the suite's cluster."
                )
                raise SuiteError(message)


def items_of_each(spec: TaskSpec, tasks: Tasks) -> int:
    """Return how many items each member of a group gives at most.

    Raises:
        SuiteError: together they cannot give as many as are asked.
    """
    return limit_of(spec, [len(task.eval_docs) for task in tasks.values()])


@contextmanager
def scoring(task: str) -> Iterator[None]:
    """Run lm-eval: quiet, compiling templates once, its failures in one line.

    Raises:
        EngineError: the model failed, or had no memory left.
        ScoringError: lm-eval failed.
    """
    render_in_sandbox()
    with quiet_lm_eval(), _no_progress_bars(), _failures_named(task):
        yield


@contextmanager
def unaggregated(tasks: Tasks) -> Iterator[None]:
    """Let lm-eval make no scores, which nobody reads: some take long, or have no number.

    A perplexity of e^710, which token salad can have, ends lm-eval by an overflow.
    """
    made_by = {name: task.aggregation for name, task in tasks.items()}
    for task in tasks.values():
        task.aggregation = _counted
    try:
        yield
    finally:
        for name, task in tasks.items():
            task.aggregation = made_by[name]


def _counted() -> Mapping[str, Callable[..., int]]:
    """Stand in for every aggregation."""
    return defaultdict(lambda: len)


def _keep_requests(**_: object) -> None:
    """Stand in for the building of requests: they are built."""


def _load_tasks(catalog: Catalog, spec: TaskSpec) -> Tasks:
    """Return lm-eval's task objects by name, with the suite's number of worked examples."""
    try:
        is_coded = any(definition.functions for definition in catalog.own.of(spec.asked))
        code_taken = _code_from_its_text() if is_coded else nullcontext()
        with quiet_lm_eval(), files_read_here(), code_taken:
            tasks: Tasks = catalog.manager(spec.asked).load([spec.asked])["tasks"]
    except (OSError, ValueError, KeyError, ImportError) as error:
        message = (
            f"the data of task '{spec.name}' cannot be loaded: {_first_line(error)}. Check the "
            "network and the task's own requirements, or take the task out of the suite."
        )
        raise SuiteError(message) from error
    for task in tasks.values():
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    return tasks


@contextmanager
def _code_from_its_text() -> Iterator[None]:
    """Let a task's code be compiled from its files, which are what is hashed.

    Python takes what lies compiled in a folder's __pycache__ instead, which may be of other code.
    """
    before = sys.pycache_prefix
    with tempfile.TemporaryDirectory() as empty:
        sys.pycache_prefix = empty
        try:
            yield
        finally:
            sys.pycache_prefix = before


def _set_seeds(seed: int) -> None:
    """Set what lm-eval and the tasks' own code may draw from; answers have seeds of their own."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- the generator that task code uses
    torch.manual_seed(seed)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silence the bar that lm-eval draws while it builds prompts; it has no switch."""
    drawn = lm_eval.api.task.tqdm
    lm_eval.api.task.tqdm = partial(drawn, disable=True)
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = drawn


@contextmanager
def _failures_named(task: str) -> Iterator[None]:
    """Turn what lm-eval and torch raise while scoring into one line with the task's name."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise EngineError(_no_memory(task), reason=ReasonCode.OUT_OF_MEMORY) from error
    except RuntimeError as error:
        if _HOST_OUT_OF_MEMORY in str(error):
            raise EngineError(_no_memory(task), reason=ReasonCode.OUT_OF_MEMORY) from error
        message = f"the model failed while answering task '{task}': {_first_line(error)}"
        raise EngineError(message) from error
    except (AssertionError, LookupError, ValueError, jinja2.TemplateError) as error:
        message = f"lm-eval failed on task '{task}': {_first_line(error)}"
        raise ScoringError(message) from error


def _no_memory(task: str) -> str:
    return (
        f"no memory was left while answering task '{task}'. "
        "Lower the suite's batch_size, or use a larger device."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
