"""Our scores as NeMo Evaluator lays out its bundles, for `nel compare`, `nel gate` and reports.

    DIR/<arm>/<task>/eval-<time>-<task>.json, results.jsonl, trajectories.jsonl

The reward is the metric as a fraction of 1, so that tasks whose metric has another range can be
read too. A request that failed has reward 0 and an error category, as NeMo Evaluator has it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from harness import __version__
from harness.artifacts import THOUGHTS_CUT, Arm, Sample, Suite, TaskSpec, to_json
from harness.doors import write_atomically

_UNSAFE = re.compile(r"[^a-zA-Z0-9_.-]")
_ENDINGS = {"scored": "stop", THOUGHTS_CUT: "length"}
"""By ours, in the words that it knows."""


def write_nel(arm: Arm, suite: Suite, into: Path, stamp: str) -> list[Path]:
    """Write one arm and return its files.

    Args:
        arm: its scores and samples.
        suite: that it answered.
        into: folder, which is made.
        stamp: time of the writing, in ISO 8601 with `-` in place of `:`.
    """
    files: list[Path] = []
    time = stamp[:19].replace("-", "") + "Z"
    for spec in suite.tasks:
        samples = arm.samples.get(spec.name)
        if not samples:
            continue
        safe = _UNSAFE.sub("_", spec.name)
        folder = into / safe
        folder.mkdir(parents=True, exist_ok=True)
        bundle = _bundle(arm, suite, spec, samples) | {"run_id": f"eval-{time}-{safe}"}
        bundle["timestamp"] = f"{stamp[:10]}T{stamp[11:19].replace('-', ':')}+00:00"
        written: dict[str, str] = {
            f"eval-{time}-{safe}.json": json.dumps(bundle, indent=2),
            "results.jsonl": _lines(_row(spec, sample) for sample in samples),
            "trajectories.jsonl": _lines(_step(arm, sample) for sample in samples),
        }
        for name, text in written.items():
            write_atomically(folder / name, text)
            files.append(folder / name)
    return files


def _lines(rows: Any) -> str:  # noqa: ANN401 -- of any mappings
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _bundle(arm: Arm, suite: Suite, spec: TaskSpec, samples: Sequence[Sample]) -> dict[str, Any]:
    served = arm.scorecard.deployment
    asked = json.loads(arm.scorecard.generation.get(spec.name, "{}"))
    return {
        "config_hash": f"sha256:{arm.scorecard.suite_digest}",
        "sdk_version": f"harness {__version__}",
        "config": {
            "benchmark": spec.name,
            "model": served.model,
            "repeats": spec.repeats,
            "max_problems": None,
            "seed": suite.seed,
            "suite": suite.name,
            "suite_digest": arm.scorecard.suite_digest,
            "metric": spec.metric,
            "filter": spec.filter,
            "asked": asked,
            "lm_eval_version": arm.scorecard.lm_eval_version,
        },
        "benchmark": {
            "name": spec.name,
            "samples": len({sample.doc_id for sample in samples}),
            "repeats": spec.repeats,
            "scores": _scores(samples),
        },
        "n_results": len(samples),
        "harness": {"version": __version__, "deployment": to_json(served)},
    }


def _scores(samples: Sequence[Sample]) -> dict[str, Any]:
    rewards = [_reward(sample) for sample in samples]
    headline = "pass@1" if set(rewards) <= {0.0, 1.0} else "mean_reward"
    return {
        headline: {"value": round(fmean(rewards), 4)},
        "summary": {
            "mean": fmean(rewards),
            "std": stdev(rewards) if len(rewards) > 1 else 0.0,
            "min": min(rewards),
            "max": max(rewards),
            "median": median(rewards),
            "n": len(rewards),
        },
    }


def _reward(sample: Sample) -> float:
    return 0.0 if sample.finish == "error" else sample.value


def _row(spec: TaskSpec, sample: Sample) -> dict[str, Any]:
    details: dict[str, Any] = {"method": f"lm-eval {spec.metric}, filter {spec.filter}"}
    if sample.finish == "error":
        details |= {"error": sample.answer, "error_category": "infra_error"}
    metadata: Mapping[str, str] = {"category": sample.cluster} if sample.cluster else {}
    return {
        "problem_idx": sample.doc_id,
        "repeat": sample.repeat,
        "reward": _reward(sample),
        "scorer_rewards": {},
        "prompt": sample.prompt,
        "model_response": "" if sample.finish == "error" else sample.answer,
        "extracted_answer": sample.voted or None,
        "expected_answer": sample.target,
        "scoring_details": details,
        "metadata": metadata,
        "tokens": sample.num_tokens or 0,
        "latency_ms": 0,
    }


def _step(arm: Arm, sample: Sample) -> dict[str, Any]:
    """Return what tells how an answer ended."""
    failed = sample.finish == "error"
    step: dict[str, Any] = {
        "problem_idx": sample.doc_id,
        "repeat": sample.repeat,
        "prompt": sample.prompt,
        "expected_answer": sample.target,
        "reward": _reward(sample),
        "failure_category": "timeout" if sample.finish == "timeout" else None,
    }
    if failed:
        return step | {"model_error": sample.answer}
    ending = _ENDINGS.get(sample.finish, sample.finish)
    tokens = {"completion": sample.num_tokens, "reasoning": sample.num_thought_tokens}
    model = {"content": sample.answer, "model": arm.scorecard.deployment.model}
    return step | {"model": model | {"finish_reason": ending, "tokens": tokens}}
