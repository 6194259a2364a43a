"""What is followed over nights beside the scores: speed, memory, the time to load, lengths."""

import math
from collections.abc import Iterator
from statistics import fmean

from harness.artifacts import KLD_CHECK, RunRecord, Scale, Scorecard, Verdict

WORSE = {"tokens_per_s": -1, "memory_bytes": 1, "load_s": 1, "answer_tokens": 1}
"""Measures that are followed against the anchor, and in which direction they are worse."""


def measures_of(record: RunRecord) -> Iterator[tuple[str, float]]:
    """Yield what is followed over nights, of what is known and finite."""
    found: dict[str, float | None] = dict(_of_verdict(record.verdict) if record.verdict else ())
    if record.smoke is not None:
        klds = [one.difference for one in record.smoke.measures if one.name == KLD_CHECK]
        found["kld"] = klds[0] if klds else None
    if record.candidate is not None:
        found |= dict(_of_candidate(record.candidate))
    for name, value in found.items():
        if value is not None and math.isfinite(value):
            yield name, float(value)


def _of_verdict(verdict: Verdict) -> Iterator[tuple[str, float | None]]:
    yield "flip_rate", verdict.flip_rate
    yield "pooled_difference", verdict.pooled_difference
    yield "answer_tokens", verdict.length.candidate if verdict.length else None
    if any(task.scale is not Scale.SHARE for task in verdict.tasks):
        ratios = [t.ratio.observed for t in verdict.tasks if t.ratio is not None]
        yield "perplexity_ratio", fmean(ratios) if ratios else None


def _of_candidate(card: Scorecard) -> Iterator[tuple[str, float | None]]:
    served, times = card.deployment, card.times
    memory = (times.memory_bytes if times else None) or served.weights_memory_bytes
    yield "memory_bytes", float(memory) if memory else None
    yield "load_s", served.load_s
    blocks = [b for pace in times.paces.values() for b in pace.blocks] if times else []
    rates = [math.log(b.num_tokens / b.seconds) for b in blocks if b.num_tokens and b.seconds > 0]
    yield "tokens_per_s", math.exp(fmean(rates)) if rates else None
