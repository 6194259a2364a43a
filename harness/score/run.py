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
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from lm_eval.evaluator import evaluate

from harness.artifacts import (
    ArmTimes,
    Deployment,
    EarlyEnd,
    Endpoint,
    Sample,
    Scale,
    Scorecard,
    Suite,
    TaskSpec,
    Tool,
    read_samples,
    save,
    write_samples,
)
from harness.errors import HarnessError
from harness.score.arm import SCORECARD_FILE
from harness.score.catalog import check_protocol, tasks_of_likelihoods
from harness.score.elsewhere import Elsewhere, scored_elsewhere
from harness.score.finished import ASKED, ScoredTask, done_before, key_of, stays
from harness.score.http_lm import ChatLM, CompletionsLM
from harness.score.metrics import scale_in
from harness.score.pace import first_tokens_of, mean_between, pace_of, resident_bytes
from harness.score.parts import Part, Watch, only, parts_of, requests_of
from harness.score.prepare import Tasks, items_of_each, prepare, scoring, unaggregated
from harness.score.recording import Recorder
from harness.score.reference_lm import Answering, ReferenceLM
from harness.score.sending import SendsAhead, takes_seeds
from harness.score.sources import Catalog, quiet_lm_eval
from harness.score.translate import to_samples, to_score

Lm = ReferenceLM | CompletionsLM | ChatLM
_log = logging.getLogger("harness.score")


class _Asking(NamedTuple):
    """What is asked, of whom, and where it goes."""

    lm: Lm
    suite: Suite
    into: Path
    watch: Watch | None
    served: Answering | Endpoint
    alone: bool
    """Whether nothing else of the run is at work meanwhile."""
    elsewhere: Elsewhere | None
    """Asks the tasks of another tool."""


def score(  # noqa: PLR0913  the one door
    served: Answering | Endpoint,
    suite: Suite,
    *,
    arm: str,
    into: Path,
    alone: bool = True,
    watch: Watch | None = None,
    elsewhere: Elsewhere | None = None,
) -> Scorecard:
    """Answer every task of `suite` and write scorecard, samples and tasks `into` a folder.

    Args:
        served: an engine's model in this process, or a server, ready to answer.
        suite: what is asked; checked before by check_suite.
        arm: `baseline` or `candidate`.
        into: folder; tasks that an earlier run finished in it are not asked again.
        alone: whether nothing else of the run is at work meanwhile, so that times mean something.
        watch: who looks at the answers meanwhile, and may end the asking.
        elsewhere: asks the tasks of another tool, after our own.

    Raises:
        SuiteError: a task's data cannot be had, or the server cannot answer it.
        ScoringError: lm-eval failed, or gave fewer answers than the suite asks for.
        EngineError: the model failed while answering or had no memory left, or the server died.
    """
    if isinstance(served, Endpoint):
        check_protocol(suite, served.protocol)
    for folder in ("samples", "tasks"):
        (into / folder).mkdir(parents=True, exist_ok=True)
    keys = {spec.name: key_of(suite, spec, served) for spec in suite.tasks}
    done = done_before(into, keys) if stays(served) else {}
    for one in done.values():
        _report(arm, one)
    ended = _look_back(done, suite, into, watch)
    missing = [] if ended else [spec for spec in suite.tasks if spec.name not in done]
    with _to_lm(served, suite) as lm:
        asking = _Asking(lm, suite, into, watch, served, alone, elsewhere)
        _prove(lm, suite, [spec for spec in missing if spec.tool is Tool.LM_EVAL])
        before = _first_tokens(lm)
        for spec, made, end in _newly_scored(asking, missing):
            if made.score.num_items == spec.items:
                path = into / "tasks" / f"{spec.name}.json"
                save(made, path, made_from={ASKED: keys[spec.name]})
            done[spec.name], ended = made, end
            _report(arm, made)
        first_token_s = mean_between(before, _first_tokens(lm))
    if ended is not None:
        done, ended = _judged(done, suite, ended)
        _log.info("score: ended early at %s, %s: %s", ended.task, ended.why, ended.saved)
    scores = [done[spec.name] for spec in suite.tasks if spec.name in done]
    times = ArmTimes(
        paces={one.score.task: one.pace for one in scores if one.pace is not None},
        first_token_s=first_token_s if len(missing) == len(suite.tasks) else None,
        memory_bytes=_memory(served),
    )
    card = _card(suite, arm, served.deployment, scores, times)
    scorecard = dataclasses.replace(card, ended=ended)
    save(scorecard, into / SCORECARD_FILE)
    return scorecard


def _card(
    suite: Suite,
    arm: str,
    deployment: Deployment,
    scores: Sequence[ScoredTask],
    times: ArmTimes,
) -> Scorecard:
    return Scorecard(
        arm=arm,
        suite=suite.name,
        suite_digest=suite.digest,
        deployment=deployment,
        tasks=tuple(one.score for one in scores),
        lm_eval_version=version("lm_eval"),
        generation={one.score.task: one.generation for one in scores},
        times=times,
        looks={one.score.task: one.looks for one in scores if one.looks},
    )


def _prove(lm: Lm, suite: Suite, missing: Sequence[TaskSpec]) -> None:
    """Prove of a server that what it is to be asked can be scored."""
    if isinstance(lm, SendsAhead) and missing:
        asked = dataclasses.replace(suite, tasks=tuple(missing))
        lm.prove(reads=bool(tasks_of_likelihoods(asked)))


def _newly_scored(
    asking: _Asking, missing: Sequence[TaskSpec]
) -> Iterator[tuple[TaskSpec, ScoredTask, EarlyEnd | None]]:
    """Yield each task as it is answered, until all are or the watch ends it."""
    ours = [spec for spec in missing if spec.tool is Tool.LM_EVAL]
    by_task = {spec.asked: [m for m in ours if m.asked == spec.asked] for spec in ours}
    for specs, tasks, parts in _prepared(asking, list(by_task.values())):
        answers = _answers(asking, specs, tasks, parts)
        for spec, made in _scored(asking, specs, tasks, answers):
            yield spec, _paced(made, asking) if spec is specs[0] else made, answers.end
        if answers.end is not None:
            return
    yield from _newly_elsewhere(asking, [spec for spec in missing if spec not in ours])


def _newly_elsewhere(
    asking: _Asking, specs: Sequence[TaskSpec]
) -> Iterator[tuple[TaskSpec, ScoredTask, EarlyEnd | None]]:
    """Yield the tasks of another tool, which asks them all at once."""
    if not specs:
        return
    if asking.elsewhere is None:
        raise AssertionError  # whoever asks a suite with such tasks gives what asks them
    for spec, made, samples in scored_elsewhere(asking.elsewhere, specs, asking.into):
        yield spec, made, asking.watch.see(spec, samples, ()) if asking.watch else None


def _paced(task: ScoredTask, asking: _Asking) -> ScoredTask:
    """Return a task that was asked just now with how fast its answers came."""
    lm, served = asking.lm, asking.served
    at_once = served.num_concurrent if isinstance(served, Endpoint) else int(lm.batch_size)
    pace = pace_of(lm.recorder.courses, alone=asking.alone, num_at_once=at_once)
    return dataclasses.replace(task, pace=pace)


def _first_tokens(lm: Lm) -> tuple[float, float]:
    return first_tokens_of(lm.metrics() if isinstance(lm, SendsAhead) else None)


def _memory(served: Answering | Endpoint) -> int | None:
    """Return what a server takes; of a model in this process nobody can tell its part."""
    if not isinstance(served, Endpoint):
        return None
    return served.deployment.weights_memory_bytes or resident_bytes(served.process)


def _report(arm: str, task: ScoredTask) -> None:
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


def _look_back(
    done: Mapping[str, ScoredTask], suite: Suite, into: Path, watch: Watch | None
) -> EarlyEnd | None:
    """Return the end that tasks of an earlier run have already shown."""
    for spec in suite.tasks:
        found = done.get(spec.name)
        if watch is not None and found is not None:
            end = watch.see(spec, read_samples(into / found.score.samples), found.looks)
            if end is not None:
                return end
    return None


def _judged(
    done: Mapping[str, ScoredTask], suite: Suite, ended: EarlyEnd
) -> tuple[dict[str, ScoredTask], EarlyEnd]:
    """Return the tasks that count after an early end, and the end with those that do not.

    The task that ended it counts, and each that was asked to its end. Another that was asked in
    part (a second metric of the same questions, or one that was under way when an earlier one
    could be looked at) does not: its part was not looked at, and no look of it is paid for.
    """
    items = {spec.name: spec.items for spec in suite.tasks}
    kept = {
        name: one
        for name, one in done.items()
        if name == ended.task or one.score.num_items == items[name]
    }
    rest = tuple(name for name in items if name not in kept)
    return kept, dataclasses.replace(ended, not_asked=rest)


def _prepared(
    asking: _Asking, tasks_asked: Sequence[Sequence[TaskSpec]]
) -> Iterator[tuple[Sequence[TaskSpec], Tasks, Sequence[Part]]]:
    """Yield each task ready to be asked; a server is sent the next one while it answers."""
    lm, suite, watch = asking.lm, asking.suite, asking.watch
    catalog = Catalog(suite.tasks_from)
    ready: dict[str, tuple[Tasks, Sequence[Part]]] = {}
    if watch is not None:
        tasks_asked = watch.order(tasks_asked)

    def make_ready(specs: Sequence[TaskSpec]) -> tuple[Tasks, Sequence[Part]]:
        spec = specs[0]
        tasks = prepare(catalog, suite, spec, lm)
        parts = parts_of(spec, tasks, watch.looks(specs) if watch else (), seed=suite.seed)
        if isinstance(lm, SendsAhead):
            for part in parts:
                lm.send_ahead(requests_of(tasks, part), spec.repeats)
        return tasks, parts

    def make_next_ready(specs: Sequence[TaskSpec]) -> None:
        with suppress(HarnessError):  # it is raised again when the turn comes
            ready[specs[0].name] = make_ready(specs)

    for specs, following in zip_longest(tasks_asked, tasks_asked[1:]):
        name = specs[0].name
        tasks, parts = ready.pop(name) if name in ready else make_ready(specs)
        if isinstance(lm, SendsAhead) and following is not None:
            lm.meanwhile = partial(make_next_ready, following)
        yield specs, tasks, parts


class _Answers(NamedTuple):
    """What was answered of one task."""

    samples: Mapping[str, Sequence[Sample]]
    """Of each metric that the suite names, in the order of the items."""
    looks: tuple[int, ...]
    end: EarlyEnd | None


def _answers(
    asking: _Asking, specs: Sequence[TaskSpec], tasks: Tasks, parts: Sequence[Part]
) -> _Answers:
    """Ask a task once, part by part, until all is answered or the watch ends it."""
    spec = specs[0]
    times = f", {spec.repeats} times each" if spec.repeats > 1 else ""
    _log.info("score: %s, %d items%s", spec.asked, spec.items, times)
    asking.lm.recorder = Recorder()
    samples: dict[str, list[Sample]] = {one.name: [] for one in specs}
    looks: list[int] = []
    end: EarlyEnd | None = None
    for number, part in enumerate(parts, start=1):
        for repeat in range(spec.repeats):
            for one, new in zip(specs, _ask(asking, specs, tasks, (part, repeat)), strict=True):
                samples[one.name] += new
        if asking.watch is not None:
            seen = (asking.watch.see(one, samples[one.name], tuple(looks)) for one in specs)
            end = next((one for one in seen if one is not None), None)
        if end is not None:
            break
        if number < len(parts):
            looks.append(len(samples[spec.name]) // spec.repeats)
    for of_metric in samples.values():
        of_metric.sort(key=lambda sample: (sample.doc_id, sample.repeat))
    return _Answers(samples, tuple(looks), end)


def _scored(
    asking: _Asking, specs: Sequence[TaskSpec], tasks: Tasks, answers: _Answers
) -> Iterator[tuple[TaskSpec, ScoredTask]]:
    """Write the samples of each metric of a task that the suite names, and yield its score."""
    lm, suite, into = asking.lm, asking.suite, asking.into
    for spec in specs:
        samples = answers.samples[spec.name]
        file = into / "samples" / f"{spec.name}.jsonl"
        write_samples(samples, file)
        cut = lm.recorder.num_prompts_cut
        made = to_score(spec, samples, num_prompts_cut=cut, file=file, scale=_scale(tasks, spec))
        generation = _generation(lm, suite, spec, tasks)
        yield spec, ScoredTask(score=made, generation=generation, looks=answers.looks)


def _scale(tasks: Tasks, spec: TaskSpec) -> Scale:
    """Return the unit of a score; the members of a group agree, as check_suite has seen."""
    return scale_in(next(iter(tasks.values())), spec.metric)


def _ask(
    asking: _Asking, specs: Sequence[TaskSpec], tasks: Tasks, which: tuple[Part, int]
) -> list[tuple[Sample, ...]]:
    """Ask for one answer to each item of a part; return the samples of each metric.

    lm-eval would hand all answers to an item to the task's filters, of which the usual one drops
    all but the first.
    """
    lm, suite, spec = asking.lm, asking.suite, specs[0]
    part, lm.repeat = which
    with scoring(spec.asked), only(tasks, part) as chosen, unaggregated(chosen):
        logged = evaluate(
            lm,
            {"tasks": chosen},
            limit=items_of_each(spec, tasks),
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=suite.apply_chat_template,
            fewshot_as_multiturn=suite.apply_chat_template,
        )["samples"]
    return [to_samples(logged, one, lm.recorder, lm.repeat, part) for one in specs]


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
        "thinking_budget": suite.thinking_budget_of(spec),
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
