"""The checks of what answers look like, each against the baseline's on the same prompts."""

import math
from collections.abc import Callable
from typing import NamedTuple

from harness.artifacts import Measure, Mode, Probe, SmokeSet
from harness.smoke import limits, surface
from harness.smoke.answers import replies_of
from harness.smoke.finding import SmokeFinding, measured, not_run
from harness.smoke.limits import Limit

_GREEDY = "greedy"
_WAYS = {_GREEDY: (Mode.GREEDY, Mode.BATCHED), "sampled": (Mode.SAMPLED,)}
_TINY = 1e-3


class _Trait(NamedTuple):
    """One property of a text."""

    name: str
    of: Callable[[surface.Texts], float]
    apart: Callable[[float, float], float]
    """How far the candidate's is from the baseline's, the first from the second."""
    limit: Limit
    only_open: bool
    """Whether short answers say nothing about it."""


def _more(candidate: float, baseline: float) -> float:
    return candidate - baseline


def _either_way(candidate: float, baseline: float) -> float:
    return abs(candidate - baseline)


def _ratio(candidate: float, baseline: float) -> float:
    return abs(math.log(max(candidate, _TINY) / max(baseline, _TINY)))


_TRAITS = (
    _Trait("smoke-repetition", surface.repetition, _more, limits.REPETITION, only_open=True),
    _Trait("smoke-compression", surface.compression, _ratio, limits.COMPRESSION, only_open=True),
    _Trait("smoke-scripts", surface.script_entropy, _either_way, limits.SCRIPTS, only_open=False),
    _Trait("smoke-dominance", surface.dominance, _more, limits.DOMINANCE, only_open=True),
    _Trait("smoke-empties", surface.empties, _more, limits.EMPTIES, only_open=False),
    _Trait("smoke-length", surface.length, _ratio, limits.LENGTH, only_open=True),
    _Trait("smoke-garbage", surface.garbage, _more, limits.GARBAGE, only_open=False),
)
NAMES = tuple(trait.name for trait in _TRAITS)


def check_surface(prompts: SmokeSet, baseline: Probe, candidate: Probe) -> list[SmokeFinding]:
    """Compare what both arms' answers look like, greedy and sampled."""
    return [_check(trait, prompts, baseline, candidate) for trait in _TRAITS]


def _check(trait: _Trait, prompts: SmokeSet, baseline: Probe, candidate: Probe) -> SmokeFinding:
    chosen = {ask.id for ask in prompts.asks if not (trait.only_open and ask.expect)}
    if not chosen:
        return not_run(trait.name, "the set has no open prompt")
    values = {}
    for way, modes in _WAYS.items():
        ours, theirs = (_texts(probe, modes, chosen) for probe in (baseline, candidate))
        values[way] = trait.of(ours), trait.of(theirs)
    way, (one, other) = max(values.items(), key=lambda item: trait.apart(item[1][1], item[1][0]))
    apart = trait.apart(other, one)
    what = "log ratio" if trait.apart is _ratio else "difference"
    message = (
        f"{other:.3f} where the baseline has {one:.3f}, {way}: "
        f"{what} {apart:.2f} (limit {trait.limit.value:g})"
    )
    measure = Measure(
        name=trait.name,
        baseline=one,
        candidate=other,
        difference=apart,
        stderr=None,
        limit=trait.limit.value,
    )
    faulty = () if apart > trait.limit.value else None
    return measured(trait.name, message, measure, faulty=faulty)


def _texts(probe: Probe, modes: tuple[Mode, ...], chosen: set[str]) -> list[str]:
    return [
        reply.text
        for mode in modes
        for name, reply in replies_of(probe, mode).items()
        if name in chosen
    ]
