"""What both arms answered: is it right, and is it the same alone and among others?"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from harness.artifacts import Ask, Mode, Probe, Reply, SideBySide, SmokeSet


class Known(NamedTuple):
    """Questions with a known answer, put in one mode."""

    mode: Mode
    asked: int
    baseline: int
    """Answered rightly by the baseline."""
    lost: tuple[str, ...]
    """Of these, the ones that the candidate did not."""
    won: int
    """Answered rightly by the candidate alone."""


def is_right(ask: Ask, text: str) -> bool:
    """Return whether an expected answer stands in the text, as a word of its own."""
    return any(_contains(text, expected) for expected in ask.expect)


def known_answers(prompts: SmokeSet, baseline: Probe, candidate: Probe, mode: Mode) -> Known:
    """Count the known answers of one mode."""
    ours, theirs = replies_of(baseline, mode), replies_of(candidate, mode)
    asks = [ask for ask in prompts.asks if ask.expect]
    right = {ask.id: is_right(ask, ours[ask.id].text) for ask in asks}
    found = {ask.id: is_right(ask, theirs[ask.id].text) for ask in asks}
    return Known(
        mode=mode,
        asked=len(asks),
        baseline=sum(right.values()),
        lost=tuple(name for name, known in right.items() if known and not found[name]),
        won=sum(found[name] and not known for name, known in right.items()),
    )


def inconsistent(prompts: SmokeSet, probe: Probe) -> tuple[str, ...]:
    """Return the questions that one arm answers otherwise among others than alone.

    Long open answers part ways at the first near tie, so those are not looked at.
    """
    alone, among = replies_of(probe, Mode.GREEDY), replies_of(probe, Mode.BATCHED)
    return tuple(
        ask.id
        for ask in prompts.asks
        if ask.expect and is_right(ask, alone[ask.id].text) != is_right(ask, among[ask.id].text)
    )


def side_by_side(prompts: SmokeSet, baseline: Probe, candidate: Probe) -> tuple[SideBySide, ...]:
    """Return both arms' answers, lost ones first."""
    found = []
    for mode in Mode:
        ours, theirs = replies_of(baseline, mode), replies_of(candidate, mode)
        for ask in prompts.asks:
            one, other = ours[ask.id], theirs[ask.id]
            lost = is_right(ask, one.text) and not is_right(ask, other.text)
            found.append(
                SideBySide(
                    ask=ask.id,
                    mode=mode,
                    prompt=ask.prompt,
                    expect=ask.expect,
                    baseline=one.error or one.text,
                    candidate=other.error or other.text,
                    lost=lost,
                )
            )
    return tuple(sorted(found, key=lambda side: not side.lost))


def replies_of(probe: Probe, mode: Mode) -> Mapping[str, Reply]:
    """Return an arm's replies of one mode, by prompt."""
    return {reply.ask: reply for reply in probe.replies if reply.mode is mode}


def _contains(text: str, expected: str) -> bool:
    if not expected.isascii():
        return expected in text  # scripts without spaces have no word boundaries
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", text, re.IGNORECASE) is not None
