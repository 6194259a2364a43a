"""Score a served model with a suite, task by task, so that a killed run loses one task at most.

A finished task is two files: `samples/<task>.jsonl`, then `tasks/<task>.json`, which is the
task's score with the digest of what it was made from. The next run takes a task from there if
that digest and the samples' sha256 still fit, and asks the model only the rest.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from lm_eval.evaluator import evaluate

from harness.artifacts import (
    ArmTimes,
    Endpoint,
    Pace,
    Sample,
    Scale,
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
from harness.errors import HarnessError
from harness.score.arm import SCORECARD_FILE, sha256_of
from harness.score.catalog import check_protocol, tasks_of_likelihoods
from harness.score.http_lm import ChatLM, CompletionsLM
from harness.score.metrics import scale_in
from harness.score.pace import first_tokens_of, mean_between, pace_of, resident_bytes
from harness.score.prepare import Tasks, items_of_each, prepare, scoring, unaggregated
from harness.score.recording import Recorder
from harness.score.reference_lm import Answering, ReferenceLM
from harness.score.sending import SendsAhead, takes_seeds
from harness.score.sources import Catalog, quiet_lm_eval
from harness.score.translate import to_samples, to_score

Lm = ReferenceLM | CompletionsLM | ChatLM
_log = logging.getLogger("harness.score")
_ASKED = "questions and deployment"


@dataclass(frozen=True, kw_only=True, slots=True)
class _ScoredTask:
    """A finished task, as it lies in tasks/<task>.json."""

    score: TaskScore
    generation: str
    pace: Pace | None = None


def score(
    served: Answering | Endpoint, suite: Suite, *, arm: str, into: Path, alone: bool = True
) -> Scorecard:
    """Answer every task of `suite` and write scorecard, samples and tasks `into` a folder.

    Args:
        served: an engine's model in this process, or a server, ready to answer.
        suite: what is asked; checked before by check_suite.
        arm: `baseline` or `candidate`.
        into: folder; tasks that an earlier run finished in it are not asked again.
        alone: whether nothing else of the run is at work meanwhile, so that times mean something.

    Raises:
        SuiteError: a task's data cannot be had, or the server cannot answer it.
        ScoringError: lm-eval failed, or gave fewer answers than the suite asks for.
        EngineError: the model failed while answering or had no memory left, or the server died.
    """
    if isinstance(served, Endpoint):
        check_protocol(suite, served.protocol)
    for folder in ("samples", "tasks"):
        (into / folder).mkdir(parents=True, exist_ok=True)
    keys = {spec.name: digest_of(suite.digest, spec.name, _how(served)) for spec in suite.tasks}
    done = _done_before(into, keys) if _stays(served) else {}
    for one in done.values():
        _report(arm, one)
    missing = [spec for spec in suite.tasks if spec.name not in done]
    with _to_lm(served, suite) as lm:
        if isinstance(lm, SendsAhead) and missing:
            asked = dataclasses.replace(suite, tasks=tuple(missing))
            lm.prove(reads=bool(tasks_of_likelihoods(asked)))
        before = _first_tokens(lm)
        by_task = {spec.asked: [m for m in missing if m.asked == spec.asked] for spec in missing}
        for first, tasks in _prepared(lm, suite, [specs[0] for specs in by_task.values()]):
            for spec, made in _score_task(lm, suite, by_task[first.asked], tasks, into):
                scored = _paced(made, lm, served, alone=alone) if spec is first else made
                path = into / "tasks" / f"{spec.name}.json"
                save(scored, path, made_from={_ASKED: keys[spec.name]})
                done[spec.name] = scored
                _report(arm, scored)
        first_token_s = mean_between(before, _first_tokens(lm))
    scores = [done[spec.name] for spec in suite.tasks]
    scorecard = Scorecard(
        arm=arm,
        suite=suite.name,
        suite_digest=suite.digest,
        deployment=served.deployment,
        tasks=tuple(one.score for one in scores),
        lm_eval_version=version("lm_eval"),
        generation={one.score.task: one.generation for one in scores},
        times=ArmTimes(
            paces={one.score.task: one.pace for one in scores if one.pace is not None},
            first_token_s=first_token_s if len(missing) == len(suite.tasks) else None,
            memory_bytes=_memory(served),
        ),
    )
    save(scorecard, into / SCORECARD_FILE)
    return scorecard


def _paced(task: _ScoredTask, lm: Lm, served: Answering | Endpoint, *, alone: bool) -> _ScoredTask:
    """Return a task that was asked just now with how fast its answers came."""
    at_once = served.num_concurrent if isinstance(served, Endpoint) else int(lm.batch_size)
    pace = pace_of(lm.recorder.courses, alone=alone, num_at_once=at_once)
    return dataclasses.replace(task, pace=pace)


def _first_tokens(lm: Lm) -> tuple[float, float]:
    return first_tokens_of(lm.metrics() if isinstance(lm, SendsAhead) else None)


def _memory(served: Answering | Endpoint) -> int | None:
    """Return what a server takes; of a model in this process nobody can tell its part."""
    if not isinstance(served, Endpoint):
        return None
    return served.deployment.weights_memory_bytes or resident_bytes(served.process)


def _report(arm: str, task: _ScoredTask) -> None:
    if task.score.scale is Scale.SHARE:
        _log.info("score: %s %s %.1f %%", arm, task.score.task, 100 * task.score.value)
    else:
        _log.info("score: %s %s %.5g", arm, task.score.task, task.score.value)


@contextmanager
def _to_lm(served: Answering | Endpoint, suite: Suite) -> Iterator[Lm]:
    with quiet_lm_eval():
        if not isinstance(served, Endpoint):
            lm: Lm = ReferenceLM(served, suite)
        else:
            chats = served.protocol == "chat"
            lm = ChatLM(served, suite) if chats else CompletionsLM(served, suite)
    if isinstance(lm, SendsAhead):
        with lm:
            yield lm
    else:
        yield lm


def _prepared(lm: Lm, suite: Suite, specs: Sequence[TaskSpec]) -> Iterator[tuple[TaskSpec, Tasks]]:
    """Yield each task ready to be asked; a server is sent the next one while it answers."""
    catalog = Catalog(suite.tasks_from)
    ready: dict[str, Tasks] = {}

    def make_ready(spec: TaskSpec) -> Tasks:
        tasks = prepare(catalog, suite, spec, lm)
        if isinstance(lm, SendsAhead):
            requests = [request for task in tasks.values() for request in task.instances]
            lm.send_ahead(requests, spec.repeats)
        return tasks

    def make_next_ready(spec: TaskSpec) -> None:
        with suppress(HarnessError):  # it is raised again when the turn comes
            ready[spec.name] = make_ready(spec)

    for spec, following in zip_longest(specs, specs[1:]):
        tasks = ready.pop(spec.name, None) or make_ready(spec)
        if isinstance(lm, SendsAhead) and following is not None:
            lm.meanwhile = partial(make_next_ready, following)
        yield spec, tasks


def _how(served: Answering | Endpoint) -> list[object]:
    """Return what decides the answers, beside the suite."""
    how = served.deployment
    computed = [how.engine, how.version, how.arguments, how.device, how.dtype, how.kernels]
    return [how.checkpoint_digest, *computed, how.tensor_parallel_size, version("lm_eval")]


def _stays(served: Answering | Endpoint) -> bool:
    """Return whether the digests tell the model: behind an address it may be exchanged."""
    return not served.deployment.address


def _done_before(into: Path, keys: Mapping[str, str]) -> dict[str, _ScoredTask]:
    found = {name: _find(into, name, key) for name, key in keys.items()}
    return {name: one for name, one in found.items() if one is not None}


def _find(into: Path, task: str, key: str) -> _ScoredTask | None:
    path = into / "tasks" / f"{task}.json"
    if made_from(path) != {_ASKED: key}:
        return None
    found = load(_ScoredTask, path)
    samples = into / found.score.samples
    if not samples.is_file() or sha256_of(samples) != found.score.samples_sha256:
        return None
    return found


def _score_task(
    lm: Lm, suite: Suite, specs: Sequence[TaskSpec], tasks: Tasks, into: Path
) -> Iterator[tuple[TaskSpec, _ScoredTask]]:
    """Ask a task once and yield each of its metrics that the suite names."""
    spec = specs[0]
    times = f", {spec.repeats} times each" if spec.repeats > 1 else ""
    _log.info("score: %s, %d items%s", spec.asked, spec.items, times)
    recorder = lm.recorder = Recorder()
    scales = {one.name: _scale(tasks, one) for one in specs}
    answered = [_ask(lm, suite, specs, tasks, repeat) for repeat in range(spec.repeats)]
    for index, one in enumerate(specs):
        of_each = zip(*(answers[index] for answers in answered), strict=True)
        samples = tuple(sample for of_item in of_each for sample in of_item)
        file = into / "samples" / f"{one.name}.jsonl"
        write_samples(samples, file)
        score = to_score(
            one,
            samples,
            num_prompts_cut=recorder.num_prompts_cut,
            file=file,
            scale=scales[one.name],
        )
        yield one, _ScoredTask(score=score, generation=_generation(lm, suite, one, tasks))


def _scale(tasks: Tasks, spec: TaskSpec) -> Scale:
    """Return the unit of a score; the members of a group agree, as check_suite has seen."""
    return scale_in(next(iter(tasks.values())), spec.metric)


def _ask(
    lm: Lm, suite: Suite, specs: Sequence[TaskSpec], tasks: Tasks, repeat: int
) -> list[tuple[Sample, ...]]:
    """Ask for one answer to each item, and let lm-eval score it; the samples of each metric.

    lm-eval would hand all answers to an item to the task's filters, of which the usual one drops
    all but the first.
    """
    spec = specs[0]
    lm.repeat = repeat
    for task in tasks.values():
        for request in task.instances:
            request.resps, request.filtered_resps = [], {}
    with scoring(spec.asked), unaggregated(tasks):
        logged = evaluate(
            lm,
            {"tasks": tasks},
            limit=items_of_each(spec, tasks),
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=suite.apply_chat_template,
            fewshot_as_multiturn=suite.apply_chat_template,
        )["samples"]
    return [to_samples(logged, one, lm.recorder, repeat) for one in specs]


def _generation(lm: Lm, suite: Suite, spec: TaskSpec, tasks: Tasks) -> str:
    """Return what shapes the answers, as JSON; equal in both arms or they are not compared."""
    first = next(iter(tasks.values()))
    arguments = {
        "output_type": str(first.OUTPUT_TYPE),
        "generation": first.get_config("generation_kwargs") or {},
        "num_fewshot": spec.num_fewshot,
        "apply_chat_template": suite.apply_chat_template,
        "thinking": suite.thinking,
        "think_end_token": suite.think_end_token,
        "thinking_budget": suite.thinking_budget,
        "chats_rendered_by": "server" if isinstance(lm, ChatLM) else "harness",
        "max_model_len": suite.max_model_len,
        "batch_size": suite.batch_size,
        "seed": suite.seed,
    }
    if spec.is_drawn:
        by_item = not isinstance(lm, SendsAhead) or takes_seeds(lm.endpoint)
        seeds = "of suite, task, item and repeat" if by_item else "the server's own"
        arguments |= {"repeats": spec.repeats, "seeds": seeds}
    return json.dumps(arguments, sort_keys=True, default=str)
