"""How fast the candidate answers beside the baseline, where that can be compared at all.

A speed belongs to a machine, to what else runs there, and to the day. So nothing is said of two
arms that were measured on different machines, on one machine at once, or days apart, nor of one
that was asked in parts (`sequential`), in another order: the verdict then says why, and shows no
number. Where the conditions were alike, the tokens a second of one request are compared block by
block: the same requests in the same order. Requests of a block share whatever the machine did
meanwhile, so a block is one observation, and Student's bounds of the mean of the logarithms are
those of the ratio.

Slower is a regression, faster is none: the band has one side. The reference engine, and kernels
that emulate a format, compute in the place of others, so their speed is no claim about any
deployment and decides nothing.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from statistics import fmean, stdev
from typing import NamedTuple

from harness.artifacts import (
    Band,
    Decision,
    Deployment,
    Pace,
    Scorecard,
    SpeedVerdict,
    Standing,
    Suite,
    Tier,
)
from harness.errors import ReasonCode
from harness.gate.objections import Objection
from harness.gate.quantiles import t_of
from harness.gate.tango import Bounds

_REFERENCE, _EMULATED = "reference", "emulat"
"""The engine, and the part of a kernel's name, that compute in the place of other kernels."""
_LONGEST_APART = timedelta(hours=24)
_FEWEST_BLOCKS = 5
"""Fewer show no spread that bounds could rest on."""


class _Paired(NamedTuple):
    """Both arms' pace of one task."""

    baseline: Pace
    candidate: Pace


def compare_speeds(suite: Suite, baseline: Scorecard, candidate: Scorecard) -> SpeedVerdict | None:
    """Compare how fast both arms answered; None where nothing was generated, or no times taken."""
    ours, theirs = _paces(baseline), _paces(candidate)
    tasks = [_Paired(ours[name], theirs[name]) for name in ours if name in theirs]
    if not tasks:
        return None
    why_not = _why_not(tasks, baseline, candidate) or _why_unknown(suite, baseline, candidate)
    if why_not:
        return _unknown(suite.speed, why_not)
    found = _measured(suite, tasks)
    before, after = baseline.times, candidate.times
    if before is None or after is None:
        raise AssertionError  # each has a pace
    if _is_emulated(candidate.deployment) or _is_emulated(baseline.deployment):
        unclear, reason = Standing.UNCLEAR, ReasonCode.NOT_ENOUGH_EVIDENCE
        found = dataclasses.replace(found, is_claim=False, standing=unclear, reason=reason)
    return dataclasses.replace(
        found,
        first_token_baseline_s=before.first_token_s,
        first_token_candidate_s=after.first_token_s,
        load_baseline_s=baseline.deployment.load_s,
        load_candidate_s=candidate.deployment.load_s,
        memory_baseline=before.memory_bytes,
        memory_candidate=after.memory_bytes,
    )


def _is_emulated(deployment: Deployment) -> bool:
    kernels = " ".join(deployment.kernels.values()).lower()
    return deployment.engine == _REFERENCE or _EMULATED in kernels


def speed_objections(speed: SpeedVerdict | None, suite: Suite) -> Iterator[Objection]:
    """Yield what the candidate's speed says against a GO."""
    is_critical = suite.speed.tier is Tier.CRITICAL
    if speed is None:
        if is_critical:
            message = "no times were taken of both arms' answers"
            yield Objection(ReasonCode.NOT_ENOUGH_EVIDENCE, Decision.INCONCLUSIVE, message)
    elif is_critical and not speed.is_claim:
        message = "the arithmetic was emulated, whose speed says nothing of a deployment"
        yield Objection(ReasonCode.NOT_ENOUGH_EVIDENCE, Decision.INCONCLUSIVE, message)
    elif is_critical and speed.standing is not Standing.WITHIN:
        is_slower = speed.standing is Standing.BEYOND
        decision = Decision.NO_GO if is_slower else Decision.INCONCLUSIVE
        yield Objection(speed.reason, decision, speed.message)
    elif speed.is_claim and speed.standing is Standing.BEYOND:
        yield Objection(speed.reason, Decision.GO, speed.message)


def _paces(card: Scorecard) -> Mapping[str, Pace]:
    return card.times.paces if card.times else {}


def _why_unknown(suite: Suite, *cards: Scorecard) -> str:
    """Return which task has times of one arm alone; of several metrics one has them."""
    asked = {spec.name: spec.asked for spec in suite.tasks}
    timed = [{asked.get(name, name) for name in _paces(card)} for card in cards]
    for card, names, others in zip(cards, timed, reversed(timed), strict=True):
        if others - names:
            missing = ", ".join(sorted(others - names))
            return f"there are no times of the {card.arm}'s answers to {missing}"
    return ""


def _why_not(tasks: list[_Paired], before: Scorecard, after: Scorecard) -> str:
    """Return why the two arms' speeds cannot be compared; empty where they can."""
    baseline, candidate = before.deployment, after.deployment
    paces = [pace for task in tasks for pace in task]
    started = [datetime.fromisoformat(pace.began) for pace in paces]
    reasons = {
        "somebody else runs the servers, and what else these do is not known": (
            bool(baseline.address or candidate.address)
        ),
        "the arms were measured on different machines, or before and after a restart": (
            len({pace.machine for pace in paces}) > 1 or not paces[0].machine
        ),
        f"the baseline was measured on {baseline.device} and the candidate on {candidate.device}": (
            baseline.device != candidate.device
        ),
        "the arms were served on different numbers of GPUs": (
            baseline.tensor_parallel_size != candidate.tensor_parallel_size
        ),
        "the arms were sent different numbers of requests at once": (
            any(task.baseline.num_at_once != task.candidate.num_at_once for task in tasks)
        ),
        "one arm was asked in parts, in another order": (
            bool(before.looks or after.looks or after.ended)
        ),
        "different numbers of requests were timed": (
            not all(_is_of_the_same(task) for task in tasks)
        ),
        "both arms were at work on one machine at once": (
            not all(pace.alone for pace in paces) or _overlap(tasks)
        ),
        "the arms were measured more than a day apart": (
            max(started) - min(started) > _LONGEST_APART
        ),
    }
    return next((why for why, is_so in reasons.items() if is_so), "")


def _is_of_the_same(task: _Paired) -> bool:
    """Return whether the same requests were timed; one that failed or came too late was not.

    Late ones are the slowest: left out of one arm alone, they would make it look faster.
    """
    ours, theirs = task.baseline.blocks, task.candidate.blocks
    if len(ours) != len(theirs):
        return False
    sizes = [(a.num_answers, b.num_answers) for a, b in zip(ours, theirs, strict=True)]
    return all(before == after or None in (before, after) for before, after in sizes)


def _overlap(tasks: list[_Paired]) -> bool:
    """Return whether one arm began before the other had ended, whichever came first."""
    spans = []
    for arm in (0, 1):
        starts = [datetime.fromisoformat(task[arm].began).timestamp() for task in tasks]
        ends = [s + task[arm].seconds for s, task in zip(starts, tasks, strict=True)]
        spans.append((min(starts), max(ends)))
    (begin, end), (other_begin, other_end) = spans
    # Beginnings are kept in whole seconds.
    return begin + 1 < other_end and other_begin + 1 < end


def _unknown(band: Band, why_not: str) -> SpeedVerdict:
    return SpeedVerdict(
        tier=band.tier,
        band=band.band,
        standing=Standing.UNCLEAR,
        reason=ReasonCode.NOT_ENOUGH_EVIDENCE,
        message=f"the speeds are not compared: {why_not}",
        why_not=why_not,
    )


def _measured(suite: Suite, tasks: list[_Paired]) -> SpeedVerdict:
    """Compare block by block."""
    blocks = [
        pair
        for task in tasks
        for pair in zip(task.baseline.blocks, task.candidate.blocks, strict=True)
    ]
    ours = [math.log(block.num_tokens / block.seconds) for block, _ in blocks]
    theirs = [math.log(block.num_tokens / block.seconds) for _, block in blocks]
    changes = [after - before for before, after in zip(ours, theirs, strict=True)]
    mean, bounds = fmean(changes), _bounds(changes, suite.confidence)
    limit = -math.log1p(suite.speed.band)
    standing, reason = Standing.UNCLEAR, ReasonCode.NOT_ENOUGH_EVIDENCE
    if bounds.high < limit:
        standing, reason = Standing.BEYOND, ReasonCode.ANSWERS_SLOWER
    elif bounds.low > limit:
        standing, reason = Standing.WITHIN, ReasonCode.NON_INFERIOR
    spread = f"between {math.exp(bounds.low):.2f} and {math.exp(bounds.high):.2f}"
    return SpeedVerdict(
        tier=suite.speed.tier,
        band=suite.speed.band,
        standing=standing,
        reason=reason,
        message=(
            f"it gives {math.exp(mean):.2f} times the baseline's tokens a second, "
            f"{spread if math.isfinite(bounds.low) else 'from too few requests to say'} on "
            f"{len(blocks)} blocks of requests, where {math.exp(limit):.2f} is asked"
        ),
        baseline=math.exp(fmean(ours)),
        candidate=math.exp(fmean(theirs)),
        ratio=math.exp(mean),
        low=math.exp(bounds.low) if math.isfinite(bounds.low) else None,
        high=math.exp(bounds.high) if math.isfinite(bounds.high) else None,
        num_blocks=len(blocks),
    )


def _bounds(changes: list[float], confidence: float) -> Bounds:
    if len(changes) < _FEWEST_BLOCKS:
        return Bounds(-math.inf, math.inf)
    half = t_of(confidence, len(changes) - 1) * stdev(changes) / math.sqrt(len(changes))
    return Bounds(fmean(changes) - half, fmean(changes) + half)
