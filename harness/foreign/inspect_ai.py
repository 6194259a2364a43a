"""inspect_ai's logs: each is one task, with its samples, their scores and how they ended.

    DIR/<time>_<task>_<id>.eval or .json

Epochs are repeats. A scorer's values C, I, P and N are 1, 0, 0.5 and 0, as inspect_ai has it; a
scorer that gives several values is several metrics. Read as of inspect_ai 0.3.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.artifacts import digest_of
from harness.errors import IncomparableError, RunDirectoryError
from harness.foreign.gaps import unseen
from harness.foreign.inspect_logs import Log, check_has_samples, logs_in, read_logs
from harness.foreign.recorded import Answer, Metric, Recorded, RecordedTask, by_item
from harness.foreign.weights import as_they_are

TOOL = "inspect_ai"
_IN_PROCESS = frozenset({"hf", "vllm", "sglang", "llama-cpp-python", "transformer_lens", "nnterp"})
"""Providers that load the model that they are named, unless an address is given."""
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ENDINGS = {"stop": "stop", "tool_calls": "stop", "content_filter": "stop"}
_CUT = frozenset({"max_tokens", "model_length"})
_NO_MATTER = frozenset(
    {"max_connections", "adaptive_connections", "max_retries", "timeout", "attempt_timeout"}
    | {"batch", "cache", "cache_prompt", "extra_headers"}
)
"""Settings of how requests are sent, which change no answer."""
_OF_CONFIG = (
    *("epochs", "epochs_reducer", "sample_shuffle", "message_limit", "token_limit", "turn_limit"),
    *("time_limit", "working_limit", "score_on_error"),
)


def is_inspect_ai(path: Path) -> bool:
    """Return whether a folder or a file holds logs of inspect_ai."""
    return bool(logs_in(path))


def read_inspect_ai(path: Path) -> Recorded:
    """Read an arm that inspect_ai scored.

    Args:
        path: a folder of logs, or one log.

    Raises:
        PrerequisiteError: inspect_ai is not installed.
        UnreadableError: a log is damaged.
        RunDirectoryError: a run did not end well, or its log lacks samples.
        IncomparableError: the folder holds several models.
    """
    return recorded_of(path, read_logs(logs_in(path)))


def recorded_of(path: Path, logs: Sequence[Log]) -> Recorded:
    """Return the arm that logs are of.

    Raises:
        RunDirectoryError: a run did not end well, or its log lacks samples.
        IncomparableError: they are of several models.
    """
    _refuse_several_models(path, logs)
    chosen: dict[str, Log] = {}
    for log in sorted(logs, key=lambda one: str(one.header["eval"].get("created"))):
        chosen[_name(log)] = log
    for log in chosen.values():
        _check_ended(log)
    tasks = tuple(_task(log) for log in chosen.values())
    notes = (*_passed_over(logs, chosen), *_remarks(chosen.values()))
    return dataclasses.replace(_recorded(path, chosen, tasks), notes=notes)


def _name(log: Log) -> str:
    """Return the task's name, without that of the package it is from."""
    return str(log.header["eval"].get("task")).rsplit("/", 1)[-1]


def _refuse_several_models(path: Path, logs: Sequence[Log]) -> None:
    models = sorted({str(log.header["eval"].get("model")) for log in logs})
    if len(models) > 1:
        message = (
            f"'{path}' holds logs of {len(models)} models: {', '.join(models)}. Name the folder, "
            "or the log, of one."
        )
        raise IncomparableError(message)


def _check_ended(log: Log) -> None:
    """Refuse a run that did not end well.

    Raises:
        RunDirectoryError: with how it ended.
    """
    status = log.header.get("status")
    if status != "success" or log.header.get("invalidated"):
        how = "was declared invalid" if status == "success" else f"has the status '{status}'"
        message = f"'{log.path}' {how}: no verdict rests on it. Run the task again."
        raise RunDirectoryError(message)
    results = log.header.get("results")
    total = results.get("total_samples") if isinstance(results, dict) else None
    check_has_samples(log.path, len(log.samples), total)
    invalid = next((s for s in log.samples if s.get("invalid")), None)
    if invalid is not None:
        message = (
            f"'{log.path}': sample '{invalid['id']}' was declared invalid, so that its answer is "
            "unknown. Run the task again."
        )
        raise RunDirectoryError(message)


def _passed_over(logs: Sequence[Log], chosen: Mapping[str, Log]) -> Iterator[str]:
    """Say of each task that was run several times which log counts."""
    for task, log in chosen.items():
        number = sum(_name(one) == task for one in logs)
        if number > 1:
            yield f"{number} logs are of {task}: the latest, '{log.path.name}', was read"


def _remarks(logs: Iterable[Log]) -> Iterator[str]:
    for log in logs:
        edited = sum(bool(sample["edited"]) for sample in log.samples)
        if edited:
            yield f"scores of {edited} samples in '{log.path}' were edited by hand after the run"


def _task(log: Log) -> RecordedTask:
    answers = sorted((_answer(sample) for sample in log.samples), key=by_item)
    metrics = dict.fromkeys(m for answer in answers for m in answer.values)
    config = log.header["eval"].get("config") or {}
    limits = {key: config[key] for key in ("limit", "sample_id") if config.get(key) is not None}
    said = ", ".join(f"{key} {value}" for key, value in limits.items())
    number = len({answer.item for answer in answers})
    return RecordedTask(
        name=_name(log),
        answers=tuple(answers),
        metrics=tuple(sorted(metrics, key=lambda metric: _rank(log, metric))),
        conditions=_conditions(log),
        chance=_chance(log.samples),
        higher_is_better=_directions(log.samples),
        left_out=f"{number} items alone were asked ({said:.80})" if limits else "",
    )


def _rank(log: Log, metric: Metric) -> int:
    """Return where a scorer stands in the task."""
    scorers = [
        str(s.get("name")).rsplit("/", 1)[-1] for s in log.header["eval"].get("scorers") or ()
    ]
    name = metric.name.split("/")[0]
    return scorers.index(name) if name in scorers else len(scorers)


def _answer(sample: Mapping[str, Any]) -> Answer:
    prompt = sample["prompt"] or sample["input"]
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
    target = sample["target"]
    wanted = target if isinstance(target, str) else json.dumps(target)
    item = [sample["id"], sample["input"], sample["choices"], target]
    error = sample["error"]
    return Answer(
        item=str(sample["id"]),
        repeat=sample["epoch"] - 1,
        doc_hash=digest_of(item),
        prompt_hash=_sha256(text),
        target_hash=_sha256(wanted),
        prompt=_readable(prompt),
        target=wanted,
        answer=str(error) if error is not None else str(sample["answer"]),
        finish=_finish(sample),
        num_tokens=sample["tokens"] if error is None else None,
        values={metric: _number(value) for metric, value in _scores(sample["scores"])},
        fields=sample["metadata"] if isinstance(sample["metadata"], dict) else {},
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _readable(prompt: object) -> str:
    """Return a prompt as text: alone where one message is all of it."""
    if isinstance(prompt, str):
        return prompt
    said = prompt if isinstance(prompt, list) else []
    if len(said) == 1:
        return str(said[0][1])
    return "\n\n".join(f"{role}: {content}" for role, content in said)


def _finish(sample: Mapping[str, Any]) -> str:
    if sample["error"] is not None:
        return "error"
    if sample["limit"] is not None or sample["stop"] in _CUT:
        return "length"
    return _ENDINGS.get(sample["stop"], "unknown")


def _scores(scores: Mapping[str, Any]) -> Iterator[tuple[Metric, object]]:
    for name, value in scores.items():
        if isinstance(value, dict):
            for part, inner in value.items():
                yield Metric(f"{name}/{part}"), inner
        else:
            yield Metric(name), value


def _directions(samples: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Return the scorers that grade; of one that gives numbers nothing says what is better."""
    found = [pair for sample in samples for pair in _scores(sample["scores"])]
    numbers = {metric.name for metric, value in found if str(value) not in _GRADES}
    return {metric.name: True for metric, _ in found if metric.name not in numbers}


def _number(value: object) -> object:
    """Return what inspect_ai counts a value as; what it has no number for stays as it is."""
    if not isinstance(value, str):
        return value
    if value in _GRADES:
        return _GRADES[value]
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _chance(samples: Sequence[Mapping[str, Any]]) -> float:
    """Return the accuracy of guessing one of an item's options; 0 where answers are free."""
    counts = [len(s["choices"]) for s in samples if s["choices"]]
    return sum(1 / n for n in counts) / len(counts) if counts else 0.0


def _conditions(log: Log) -> dict[str, object]:
    spec, plan = log.header["eval"], log.header.get("plan") or {}
    config = spec.get("config") or {}
    packages = spec.get("packages") or {}
    generation = {**_settings(spec.get("model_generate_config")), **_settings(plan.get("config"))}
    dataset = spec.get("dataset") or {}
    found: dict[str, object] = {f"{name}'s version": packages[name] for name in sorted(packages)}
    found |= {
        "the task": spec.get("task"),
        "the task's version": spec.get("task_version"),
        "the task's arguments": spec.get("task_args") or None,
        "the data set": dataset.get("name"),
        "the data set shuffled": dataset.get("shuffled"),
        "the solvers": [[s.get("solver"), s.get("params")] for s in plan.get("steps") or ()],
        "the scorers": [[s.get("name"), s.get("options")] for s in spec.get("scorers") or ()],
        "the models of other roles": _roles(spec.get("model_roles")),
    }
    names = sorted({*generation, "temperature", "max_tokens", "seed"})
    found |= {f"the generation argument {name}": generation.get(name) for name in names}
    return found | {name: config.get(name) for name in _OF_CONFIG}


def _settings(config: object) -> dict[str, object]:
    found = config if isinstance(config, dict) else {}
    return {k: v for k, v in found.items() if k not in _NO_MATTER and v is not None}


def _roles(roles: object) -> object:
    """Return which models grade, by their role."""
    if not isinstance(roles, dict):
        return None
    return {k: v.get("model") if isinstance(v, dict) else v for k, v in sorted(roles.items())}


def _recorded(path: Path, chosen: Mapping[str, Log], tasks: tuple[RecordedTask, ...]) -> Recorded:
    last = max(chosen.values(), key=lambda log: str(log.header["eval"].get("created")))
    model, spec = str(last.header["eval"].get("model")), last.header["eval"]
    provider = model.split("/", 1)[0]
    loads = provider in _IN_PROCESS and not spec.get("model_base_url")
    told = spec.get("model_args") or {}
    named = str(told.get("model_path") or model.partition("/")[2])
    unknown = any(answer.finish == "unknown" for task in tasks for answer in task.answers)
    return Recorded(
        tool=TOOL,
        scorer=TOOL,
        version=str((spec.get("packages") or {}).get(TOOL, "unknown")),
        place=str(path),
        model=model,
        identity=digest_of([model, spec.get("model_args")]) if loads else "",
        loaded=as_they_are(named, told) if loads else "",
        runs=frozenset(str(log.header["eval"].get("eval_id")) for log in chosen.values()),
        engine=f"{provider} of inspect_ai",
        tasks=tasks,
        groups={},
        gaps=unseen(str(path), TOOL, endings=unknown),
    )
