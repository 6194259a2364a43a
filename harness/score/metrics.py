"""Whether a metric of a task says something of each item, so that two arms can be paired by it.

lm-eval makes a task's score of what it has of each item by an aggregation. The mean of items is
paired item by item, a perplexity document by document. What is made of all answers at once (bleu
over a corpus, an F1 of classes, a function of the task's own) has no value of an item: it is
refused, with what the same task has beside it.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.registry import (
    AGGREGATION_REGISTRY,
    DEFAULT_METRIC_REGISTRY,
    HIGHER_IS_BETTER_REGISTRY,
    METRIC_AGGREGATION_REGISTRY,
)

from harness.artifacts import Scale, TaskSpec
from harness.errors import SuiteError

BRIER = "brier_score"
"""lm-eval hands on each item's label and probabilities; its mean is one over items all the same."""
_PAIRED = {
    "mean": Scale.SHARE,
    BRIER: Scale.SHARE,
    "perplexity": Scale.PERPLEXITY,
    "weighted_perplexity": Scale.PERPLEXITY,
    "bits_per_byte": Scale.BITS,
}
"""What lm-eval's aggregations make of items or documents."""
_ELSEWHERE = {
    "generate_until": "'exact_match', or a number for each item from the task's own "
    "process_results (with 'aggregation: mean' and, in the suite, a value_range)",
    "multiple_choice": "'acc', 'acc_norm' or 'brier_score'",
    "loglikelihood": "'acc' or 'perplexity'",
    "loglikelihood_rolling": "'word_perplexity', 'byte_perplexity' or 'bits_per_byte'",
}
"""By output type, what is paired in a task that has no such metric yet."""
_NO_ITEM = {"likelihood", "acc_all", "bypass"}
"""Metrics that lm-eval says are a mean, and hands on in another form."""


def check_metric(spec: TaskSpec, config: Mapping[str, Any]) -> None:
    """Refuse a metric that is unknown, cannot be paired, or is asked for in another form.

    Raises:
        SuiteError: with what can be used instead.
    """
    known = _names(config)
    if spec.metric not in known:
        raise SuiteError(unknown(f"metric of task '{spec.name}'", spec.metric, known))
    scale = scale_of(spec.metric, config)
    if scale is None:
        raise SuiteError(_not_paired(spec, config, known))
    if scale is Scale.SHARE and spec.relative_margin is not None:
        message = (
            f"task '{spec.name}': a relative_margin is of a perplexity, and metric "
            f"'{spec.metric}' is none. Give it a margin or a recovery."
        )
        raise SuiteError(message)
    if scale is not Scale.SHARE and spec.relative_margin is None:
        message = (
            f"task '{spec.name}': metric '{spec.metric}' is a perplexity, which has no margin in "
            "points. Give it a relative_margin, such as 0.01 for a rise of 1 %, and a spread."
        )
        raise SuiteError(message)
    if scale is Scale.SHARE:
        _check_direction(spec, config)


def scale_of(metric: str, config: Mapping[str, Any]) -> Scale | None:
    """Return the unit of a task's score; None where it is made of all answers at once."""
    if metric in _NO_ITEM:
        return None
    return _PAIRED.get(_aggregation(metric, config) or "")


def scale_in(task: Any, metric: str) -> Scale:  # noqa: ANN401 -- lm-eval has no types
    """Return the unit of a score of a task that is loaded."""
    return _PAIRED.get(_known_as(task.aggregation().get(metric)) or "", Scale.SHARE)


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """Return that a name is unknown, and those that are near it."""
    return f"unknown {what}: '{name}'.{nearest_to(name, known)}"


def nearest_to(name: str, known: Sequence[str]) -> str:
    """Return a question after the nearest of the known names."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)[:5]
    return f" Did you mean {' or '.join(repr(n) for n in near)}?"


def _names(config: Mapping[str, Any]) -> list[str]:
    listed = config.get("metric_list")
    if not listed:
        return list(DEFAULT_METRIC_REGISTRY[config.get("output_type", "generate_until")])
    return [_name(entry) for entry in listed]


def _name(entry: Mapping[str, Any]) -> str:
    """Return a metric's name; that of a function is what stands last in where it lies."""
    metric = str(entry.get("metric"))
    return metric.rpartition(".")[2] if "/" in metric else metric


def _entry(metric: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    listed: Sequence[Mapping[str, Any]] = config.get("metric_list") or ()
    return next((entry for entry in listed if _name(entry) == metric), {})


def _aggregation(metric: str, config: Mapping[str, Any]) -> str | None:
    """Return the name of what makes the score; None for a function of the task's own."""
    given = _entry(metric, config).get("aggregation")
    if given is not None:
        return None if "/" in str(given) else str(given)
    return _known_as(METRIC_AGGREGATION_REGISTRY.get(metric, None))


def _known_as(function: object) -> str | None:
    """Return the name under which lm-eval knows an aggregation."""
    return next((name for name, one in AGGREGATION_REGISTRY.items() if one is function), None)


def _not_paired(spec: TaskSpec, config: Mapping[str, Any], known: Sequence[str]) -> str:
    made = _aggregation(spec.metric, config)
    by = f"by '{made}'" if made else "by a function of the task's own"
    others = [f"'{name}'" for name in known if scale_of(name, config) is not None]
    kind = str(config.get("output_type", "generate_until"))
    instead = ", ".join(others) or _ELSEWHERE.get(kind, "a metric of each item")
    return (
        f"task '{spec.name}': metric '{spec.metric}' is made of all answers at once, {by}, so that "
        f"two arms cannot be paired item by item. Use {instead}."
    )


def _check_direction(spec: TaskSpec, config: Mapping[str, Any]) -> None:
    """Refuse a range that has the better values at the wrong end."""
    registered = HIGHER_IS_BETTER_REGISTRY.get(spec.metric, None)
    given = _entry(spec.metric, config).get("higher_is_better", registered)
    worst, best = spec.value_range or (0.0, 1.0)
    if spec.metric == BRIER and spec.value_range is None:
        message = (
            f"task '{spec.name}': metric '{BRIER}' is between 2 (worst) and 0. Give the task "
            "value_range: [2, 0], and a spread."
        )
        raise SuiteError(message)
    if given is None or bool(given) == (best > worst):
        return
    better = "higher" if given else "lower"
    message = (
        f"task '{spec.name}': {better} values of metric '{spec.metric}' are better, but "
        f"{worst:g} counts as the worst and {best:g} as the best. Give the task a value_range with "
        "the worst value first."
    )
    raise SuiteError(message)
