"""One samples_*.jsonl of lm-eval: a line for each item and filter, each metric a key of it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from harness.errors import IncomparableError, UnreadableError
from harness.foreign.recorded import Answer, Metric, whole_number
from harness.reading import JsonLine, iter_json_lines

Line = Mapping[str, Any]
_HASHES = ("doc_hash", "prompt_hash", "target_hash")
_KNOWN = frozenset(
    {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
).union(_HASHES)
NO_FILTER = "none"
"""Of a task that takes answers as they are, and of samples before lm-eval named filters."""
NO_ANSWER = "LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER"
"""What lm-eval puts in the place of an answer without content."""


class SamplesFile(NamedTuple):
    """What one file says."""

    answers: tuple[Answer, ...]
    """Ordered by item."""
    metrics: tuple[Metric, ...]
    means: Mapping[Metric, float]
    """Of the metrics that lm-eval averages over items."""
    digest: str
    """As lm-eval computes a task's hash."""
    asked: tuple[str, ...]
    """Each set of generation arguments that was sent, as JSON-like text."""
    chance: float

    @property
    def num_items(self) -> int:
        """Return how many items have an answer."""
        return len(self.answers)


def read_samples_file(file: Path, config: Mapping[str, Any]) -> SamplesFile:
    """Read the answers to one task.

    Args:
        file: of samples.
        config: the task's, as the results have it.

    Raises:
        UnreadableError: a line is no sample.
        IncomparableError: an item has two answers, or lacks one that others have.
    """
    lines = [_line(line) for line in iter_json_lines(file)]
    digest = hashlib.sha256("".join(str(x[h]) for x in lines for h in _HASHES).encode())
    by_filter = _by_filter(file, lines)
    first = next(iter(by_filter.values()), {})
    items = sorted(first)
    metrics = tuple(
        Metric(name, filter_name)
        for filter_name, found in by_filter.items()
        for name in _metrics_of(found[items[0]])
    )
    answers = tuple(
        _answer(first[item], {name: found[item] for name, found in by_filter.items()}, metrics)
        for item in items
    )
    return SamplesFile(
        answers=answers,
        metrics=metrics,
        means=_means(answers, metrics, config),
        digest=digest.hexdigest(),
        asked=tuple(sorted({_asked(x) for x in lines})),
        chance=_chance(first.values()),
    )


def _line(line: JsonLine) -> Line:
    value = line.value
    if not isinstance(value, dict):
        raise UnreadableError(line.where, f"holds no sample but {value!r:.40}")
    for key in ("doc_id", "arguments", "resps", *_HASHES):
        if key not in value:
            why = f"has no '{key}', as samples of lm-eval 0.4.3 or later have"
            raise UnreadableError(line.where, why)
    if not isinstance(value["doc_id"], int) or not isinstance(value["arguments"], dict | list):
        why = f"is no sample: doc_id {value['doc_id']!r:.20}, arguments {value['arguments']!r:.40}"
        raise UnreadableError(line.where, why)
    return {"filter": NO_FILTER} | value


def _by_filter(file: Path, lines: Iterable[Line]) -> dict[str, dict[int, Line]]:
    """Return the lines by filter and item.

    Raises:
        IncomparableError: an item occurs twice with a filter, or not with each.
    """
    found: dict[str, dict[int, Line]] = {}
    for line in lines:
        items = found.setdefault(str(line["filter"]), {})
        item = line["doc_id"]
        if item in items:
            message = (
                f"'{file}' has item {item} twice (filter '{line['filter']}'): nobody knows which "
                "answer counts. Score again."
            )
            raise IncomparableError(message)
        items[item] = line
    all_items = set().union(*found.values())
    for name, items in found.items():
        if missing := sorted(all_items - items.keys()):
            message = f"'{file}' has no item {missing[0]} with filter '{name}'. Score again."
            raise IncomparableError(message)
    return found


def _metrics_of(line: Line) -> list[str]:
    named = line.get("metrics")
    if isinstance(named, list):
        return [str(name) for name in named]
    return [key for key in line if key not in _KNOWN]


def _answer(first: Line, lines: Mapping[str, Line], metrics: Sequence[Metric]) -> Answer:
    arguments = _arguments(first)
    options = [str(pair[1]) for pair in arguments if len(pair) > 1 and isinstance(pair[1], str)]
    text = _chosen(first, options) if options else _text(first)
    doc = first.get("doc")
    return Answer(
        item=str(first["doc_id"]),
        doc_hash=str(first["doc_hash"]),
        prompt_hash=str(first["prompt_hash"]),
        target_hash=str(first["target_hash"]),
        prompt=str(arguments[0][0]) if arguments and arguments[0] else "",
        target=_target(first, options),
        answer=text,
        finish="scored" if options else "unknown",
        values={metric: lines[metric.filter].get(metric.name) for metric in metrics},
        fields=doc if isinstance(doc, dict) else {},
    )


def _arguments(line: Line) -> list[list[Any]]:
    """Return what each request had: a prompt, and an option or generation arguments."""
    found = line["arguments"]
    requests = found.values() if isinstance(found, dict) else found
    return [_texts(one) for one in requests]


def _texts(request: object) -> list[Any]:
    if isinstance(request, dict):
        return list(request.values())
    return request if isinstance(request, list) else [request]


def _asked(line: Line) -> str:
    settings = [pair[1] for pair in _arguments(line) if len(pair) > 1 and isinstance(pair[1], dict)]
    return str(sorted(settings[0].items())) if settings else ""


def _text(line: Line) -> str:
    """Return the first answer to the first request."""
    found = line["resps"]
    while isinstance(found, list) and found:
        found = found[0]
    text = found if isinstance(found, str) else ""
    return "" if text == NO_ANSWER else text


def _chosen(line: Line, options: Sequence[str]) -> str:
    """Return the likeliest option, as far as the log-likelihoods can be read."""
    try:
        scores = [float(answers[0][0]) for answers in line["resps"]]
    except (TypeError, ValueError, IndexError, KeyError):
        return ""
    best = max(range(len(scores)), key=scores.__getitem__, default=0)
    return options[best] if best < len(options) else ""


def _target(line: Line, options: Sequence[str]) -> str:
    target = str(line.get("target", ""))
    index = whole_number(target)
    return options[index] if index is not None and index < len(options) > 1 else target


def _means(
    answers: Sequence[Answer], metrics: Sequence[Metric], config: Mapping[str, Any]
) -> dict[Metric, float]:
    """Return the averages that the results must show, where lm-eval averages."""
    listed = config.get("metric_list")
    said = listed if isinstance(listed, list) else []
    kinds = {str(m.get("metric")): m.get("aggregation") for m in said if isinstance(m, dict)}
    means = {}
    for metric in metrics:
        values = [answer.values[metric] for answer in answers]
        numbers = [float(v) for v in values if isinstance(v, bool | int | float)]
        made = "perplexity" if metric.name == "perplexity" else "mean"
        if kinds.get(metric.name, made) == "mean" and numbers and len(numbers) == len(values):
            means[metric] = fmean(numbers)
    return means


def _chance(lines: Iterable[Line]) -> float:
    """Return the accuracy of guessing one of an item's options; 0 where answers are generated."""
    counts = [
        len(pairs)
        for pairs in (_arguments(line) for line in lines)
        if len(pairs) > 1 and all(len(p) > 1 and isinstance(p[1], str) for p in pairs)
    ]
    return fmean([1 / count for count in counts]) if counts else 0.0
