"""Our scores as lm-eval lays out its own, for the tools that read those.

    DIR/<arm>/results_<time>.json and samples_<task>_<time>.jsonl

Everything that lm-eval's layout has no place for stands under the key `harness` of the results.
What we do not keep is left out rather than made up: an item's own fields, and the log-likelihoods
of options. A request that failed has its error and no metric.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import __version__
from harness.artifacts import Arm, Sample, Suite, TaskScore, TaskSpec, to_json
from harness.doors import write_atomically

_OF_NO_FILE = ("/", "\\", ":", "*", "?", '"', "<", ">", "|", "[", "]")
"""Characters that lm-eval takes out of a model's name."""


def write_lm_eval(arm: Arm, suite: Suite, into: Path, stamp: str) -> list[Path]:
    """Write one arm and return its files.

    Args:
        arm: its scores and samples.
        suite: that it answered.
        into: folder, which is made.
        stamp: time of the writing, as it stands in the files' names.
    """
    into.mkdir(parents=True, exist_ok=True)
    scores = {score.task: score for score in arm.scorecard.tasks}
    specs = [spec for spec in suite.tasks if spec.name in scores]
    hashes: dict[str, str] = {}
    files = []
    for spec in specs:
        lines = [
            _line(spec, list(answers), arm.scorecard.generation.get(spec.name, "{}"))
            for _, answers in groupby(arm.samples[spec.name], key=lambda sample: sample.doc_id)
        ]
        file = into / f"samples_{spec.name}_{stamp}.jsonl"
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(file, text)
        hashes[spec.name] = _hash_of(lines)
        files.append(file)
    results = into / f"results_{stamp}.json"
    values = _results(arm, suite, specs, scores) | {"task_hashes": hashes}
    write_atomically(results, json.dumps(values, indent=2, ensure_ascii=False))
    return [results, *files]


def raw_value(spec: TaskSpec, share: float) -> float:
    """Return a metric as the task gives it, of the fraction of 1 that we keep."""
    worst, best = spec.value_range or (0.0, 1.0)
    return worst + share * (best - worst)


def _line(spec: TaskSpec, answers: Sequence[Sample], generation: str) -> dict[str, Any]:
    first = answers[0]
    known = [raw_value(spec, a.value) for a in answers if a.finish != "error"]
    asked = json.loads(generation).get("generation") or {}
    line: dict[str, Any] = {
        "doc_id": first.doc_id,
        "doc": {spec.cluster: first.cluster} if spec.cluster else {},
        "target": first.target,
        "arguments": {"gen_args_0": {"arg_0": first.prompt, "arg_1": asked}},
        "resps": [[a.answer for a in answers]],
        "filtered_resps": [first.voted or first.answer],
        "filter": spec.filter,
        "metrics": [spec.metric] if known else [],
        "doc_hash": first.doc_hash,
        "prompt_hash": first.prompt_hash,
        "target_hash": first.target_hash,
        "finish": [a.finish for a in answers],
    }
    return line | {spec.metric: fmean(known)} if known else line


def _hash_of(lines: Sequence[Mapping[str, Any]]) -> str:
    parts = (str(x[k]) for x in lines for k in ("doc_hash", "prompt_hash", "target_hash"))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _results(
    arm: Arm, suite: Suite, specs: Sequence[TaskSpec], scores: Mapping[str, TaskScore]
) -> dict[str, Any]:
    card, served = arm.scorecard, arm.scorecard.deployment
    items = {s.name: len({a.doc_id for a in arm.samples[s.name]}) for s in specs}
    name = served.model
    for character in _OF_NO_FILE:
        name = name.replace(character, "__")
    return {
        "results": {s.name: _score(s, scores[s.name], items[s.name]) for s in specs},
        "group_subtasks": {},
        "configs": {s.name: _config(s, card.generation.get(s.name, "{}")) for s in specs},
        "versions": {s.name: None for s in specs},
        "n-shot": {s.name: s.num_fewshot for s in specs},
        "higher_is_better": {s.name: {s.metric: _is_up(s)} for s in specs},
        "n-samples": {n: {"original": count, "effective": count} for n, count in items.items()},
        "config": {
            "model": served.engine,
            "model_args": {"pretrained": served.model},
            "model_dtype": served.dtype,
            "batch_size": str(suite.batch_size),
            "device": served.device,
            "limit": None,
            "gen_kwargs": {},
            **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed"), suite.seed),
            "fewshot_seed": suite.seed,
        },
        "lm_eval_version": card.lm_eval_version,
        "model_source": served.engine,
        "model_name": served.model,
        "model_name_sanitized": name,
        "max_length": suite.max_model_len,
        "harness": {"version": __version__, "scorecard": to_json(card)},
    }


def _score(spec: TaskSpec, score: TaskScore, items: int) -> dict[str, Any]:
    worst, best = spec.value_range or (0.0, 1.0)
    key = f"{spec.metric}{{}},{spec.filter}"
    return {
        "name": spec.name,
        "alias": spec.name,
        "sample_len": items,
        key.format(""): raw_value(spec, score.value),
        key.format("_stderr"): score.stderr * abs(best - worst),
    }


def _is_up(spec: TaskSpec) -> bool:
    worst, best = spec.value_range or (0.0, 1.0)
    return best > worst


def _config(spec: TaskSpec, generation: str) -> dict[str, Any]:
    asked = json.loads(generation)
    return {
        "task": spec.name,
        "output_type": asked.get("output_type"),
        "num_fewshot": spec.num_fewshot,
        "generation_kwargs": asked.get("generation") or {},
        "repeats": spec.repeats,
        "metric_list": [
            {"metric": spec.metric, "aggregation": "mean", "higher_is_better": _is_up(spec)}
        ],
    }
