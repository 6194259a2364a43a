"""Score a served model with a suite, task by task, so that a killed run loses one task at most.

A finished task is two files: `samples/<task>.jsonl`, then `tasks/<task>.json`, which is the
task's score with the digest of what it was made from. The next run takes a task from there if
that digest and the samples' sha256 still fit, and asks the model only the rest.
"""

import json
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import lm_eval.api.task
import numpy as np
import torch
from lm_eval.evaluator import evaluate

from harness.artifacts import (
    Scorecard,
    Suite,
    TaskScore,
    TaskSpec,
    digest_of,
    load,
    made_from,
    save,
    write_samples,
)
from harness.errors import EngineError, ReasonCode, ScoringError, SuiteError
from harness.score.arm import SCORECARD_FILE, sha256_of
from harness.score.catalog import Catalog, quiet_lm_eval
from harness.score.local_data import in_memory
from harness.score.recording import Recorder
from harness.score.reference_lm import Answering, ReferenceLM
from harness.score.translate import to_samples, to_score

_log = logging.getLogger("harness.score")
_HOST_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""torch raises a plain RuntimeError with this name when the host has no memory left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _ScoredTask:
    """A finished task, as it lies in tasks/<task>.json."""

    score: TaskScore
    generation: str


def score(served: Answering, suite: Suite, *, arm: str, into: Path) -> Scorecard:
    """Answer every task of `suite` and write scorecard, samples and tasks `into` a folder.

    Args:
        served: an engine's model, ready to answer.
        suite: what is asked; checked before by check_suite.
        arm: `baseline` or `candidate`.
        into: folder; tasks that an earlier run finished in it are not asked again.

    Raises:
        SuiteError: a task's data cannot be had.
        ScoringError: lm-eval failed, or gave fewer answers than the suite asks for.
        EngineError: the model failed while answering, or had no memory left.
    """
    for folder in ("samples", "tasks"):
        (into / folder).mkdir(parents=True, exist_ok=True)
    catalog = Catalog()
    done: list[_ScoredTask] = []
    for spec in suite.tasks:
        key = digest_of(suite.digest, spec.name, served.deployment.checkpoint_digest, _how(served))
        found = _find(into, spec.name, key)
        if found is None:
            found = _score_task(served, suite, spec, _load_tasks(catalog, spec), into)
            save(found, into / "tasks" / f"{spec.name}.json", made_from=key)
        done.append(found)
        _log.info("score: %s %s %.1f %%", arm, spec.name, 100 * found.score.value)
    scorecard = Scorecard(
        arm=arm,
        suite=suite.name,
        suite_digest=suite.digest,
        deployment=served.deployment,
        tasks=tuple(task.score for task in done),
        lm_eval_version=version("lm_eval"),
        generation={task.score.task: task.generation for task in done},
    )
    save(scorecard, into / SCORECARD_FILE)
    return scorecard


def _how(served: Answering) -> list[object]:
    how = served.deployment
    return [how.engine, how.version, how.device, how.dtype, version("lm_eval")]


def _find(into: Path, task: str, key: str) -> _ScoredTask | None:
    path = into / "tasks" / f"{task}.json"
    if made_from(path) != key:
        return None
    found = load(_ScoredTask, path)
    samples = into / found.score.samples
    if not samples.is_file() or sha256_of(samples) != found.score.samples_sha256:
        return None
    return found


def _load_tasks(catalog: Catalog, spec: TaskSpec) -> Mapping[str, Any]:
    """Return lm-eval's task objects by name, with the suite's number of worked examples."""
    members = [_member(catalog, leaf) for leaf in catalog.leaves(spec.name)]
    in_memory_group = {"group": f"{spec.name}, in memory", "task": members}
    wanted = in_memory_group if any("custom_dataset" in m for m in members) else spec.name
    try:
        with quiet_lm_eval():
            tasks: Mapping[str, Any] = catalog.manager(spec.name).load([wanted])["tasks"]
    except (OSError, ValueError, KeyError, ImportError) as error:
        message = (
            f"the data of task '{spec.name}' cannot be loaded: {_first_line(error)}. Check the "
            "network and the task's own requirements, or take the task out of the suite."
        )
        raise SuiteError(message) from error
    for task in tasks.values():
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    return tasks


def _member(catalog: Catalog, leaf: str) -> dict[str, Any]:
    """Return `leaf` as lm-eval takes the member of a group, its data replaced if it is ours."""
    if not catalog.is_local(leaf):
        return {"task": leaf}
    entry = catalog.entry(leaf)
    data = in_memory(Path(entry.yaml_path).parent, entry.cfg["dataset_kwargs"])
    return {"task": leaf, "custom_dataset": data}


def _score_task(
    served: Answering, suite: Suite, spec: TaskSpec, tasks: Mapping[str, Any], into: Path
) -> _ScoredTask:
    _log.info("score: %s, %d items", spec.name, spec.items)
    recorder = Recorder()
    with quiet_lm_eval(), _no_progress_bars(), _failures_named(spec.name):
        _set_seeds(suite.seed, tasks)
        logged = evaluate(
            ReferenceLM(served, suite, recorder),
            {"tasks": tasks},
            limit=spec.items // len(tasks),
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=suite.apply_chat_template,
            fewshot_as_multiturn=suite.apply_chat_template,
        )["samples"]
    samples = to_samples(logged, spec, recorder)
    file = into / "samples" / f"{spec.name}.jsonl"
    write_samples(samples, file)
    score = to_score(spec, samples, num_prompts_cut=recorder.num_prompts_cut, file=file)
    return _ScoredTask(score=score, generation=_generation(suite, spec, tasks))


def _set_seeds(seed: int, tasks: Mapping[str, Any]) -> None:
    """Set what lm-eval and the tasks' own code may draw from; greedy answers draw nothing."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- the generator that task code uses
    torch.manual_seed(seed)
    for task in tasks.values():
        task.set_fewshot_seed(seed=seed)


def _generation(suite: Suite, spec: TaskSpec, tasks: Mapping[str, Any]) -> str:
    """Return what shapes the answers, as JSON; equal in both arms or they are not compared."""
    first = next(iter(tasks.values()))
    arguments = {
        "output_type": str(first.OUTPUT_TYPE),
        "generation": first.get_config("generation_kwargs") or {},
        "num_fewshot": spec.num_fewshot,
        "apply_chat_template": suite.apply_chat_template,
        "thinking": False,
        "max_model_len": suite.max_model_len,
        "batch_size": suite.batch_size,
        "seed": suite.seed,
    }
    return json.dumps(arguments, sort_keys=True, default=str)


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
