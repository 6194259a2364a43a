"""What the candidate costs beside the baseline, and how its answers went, ready to be set."""

from collections.abc import Iterator
from typing import NamedTuple

from harness.artifacts import (
    LengthVerdict,
    RunRecord,
    Scorecard,
    SpeedVerdict,
    TaskScore,
    TaskVerdict,
    Tier,
    Verdict,
)
from harness.report.words import DECISIONS, percent, size

_USUAL = ("stop", "scored")
"""How answers end where nothing is wrong."""
_A_SECOND = 1.0


class Measure(NamedTuple):
    """One thing that both arms cost."""

    name: str
    baseline: str
    candidate: str
    change: str
    note: str = ""


class LengthRow(NamedTuple):
    """How long the answers of one task are."""

    task: str
    tier: str
    baseline: str
    candidate: str
    ratio: str
    interval: str
    band: str
    cut: str
    kind: str
    """CSS class of the chip."""
    word: str


class SampledRow(NamedTuple):
    """A number of a task whose items are asked several times."""

    task: str
    asked: str
    name: str
    baseline: str
    candidate: str


class EndingRow(NamedTuple):
    """How the answers of one task of one arm ended."""

    task: str
    arm: str
    endings: str


def measures_of(verdict: Verdict | None) -> list[Measure]:
    """Return what both arms cost, one thing a row; what is not known is left out."""
    if verdict is None:
        return []
    rows = []
    if verdict.size is not None:
        ours, theirs = verdict.size.baseline_bytes, verdict.size.candidate_bytes
        promised = f"the format promises {size(verdict.size.promised_bytes)}"
        rows.append(
            Measure("Weight files", size(ours), size(theirs), _times(theirs / ours), promised)
        )
    if verdict.length is not None:
        rows += _lengths(verdict.length)
    if verdict.speed is not None and not verdict.speed.why_not:
        rows += _speeds(verdict.speed)
    return rows


def _lengths(length: LengthVerdict) -> Iterator[Measure]:
    note = f"geometric mean over {length.num_items} items, {_interval(length)}"
    yield Measure(
        "Tokens of an answer",
        f"{length.baseline:.1f}",
        f"{length.candidate:.1f}",
        _times(length.ratio),
        note,
    )
    before, after = length.baseline_thoughts, length.candidate_thoughts
    if before is not None and after is not None:
        change = _times(after / before) if before else "-"
        yield Measure("of these, thoughts", f"{before:.1f}", f"{after:.1f}", change)


def _speeds(speed: SpeedVerdict) -> Iterator[Measure]:
    if speed.baseline is not None and speed.candidate is not None and speed.ratio is not None:
        note = f"of one request, geometric mean over {speed.num_blocks} blocks of requests"
        if speed.low is not None and speed.high is not None:
            note += f", between {speed.low:.2f} and {speed.high:.2f}"
        yield Measure(
            "Tokens a second",
            f"{speed.baseline:.1f}",
            f"{speed.candidate:.1f}",
            _times(speed.ratio),
            note,
        )
    yield from _pair(
        "Time to first token", speed.first_token_baseline_s, speed.first_token_candidate_s
    )
    yield from _pair("Time to load", speed.load_baseline_s, speed.load_candidate_s)
    ours, theirs = speed.memory_baseline, speed.memory_candidate
    if ours and theirs:
        yield Measure("Memory", size(ours), size(theirs), _times(theirs / ours))


def _pair(name: str, ours: float | None, theirs: float | None) -> Iterator[Measure]:
    if ours and theirs:
        yield Measure(name, _time(ours), _time(theirs), _times(theirs / ours))


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= _A_SECOND else f"{1000 * seconds:.0f} ms"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} x"


def speed_note(verdict: Verdict | None) -> str:
    """Say what is not said of speeds, and why; nothing where all is."""
    speed = verdict.speed if verdict else None
    if speed is None:
        return ""
    if speed.why_not:
        return f"Speeds are not compared: {speed.why_not}."
    if not speed.is_claim:
        return (
            "The arithmetic was emulated here: its speed says nothing of a deployment, and decides "
            "nothing."
        )
    word = speed.standing if speed.tier is Tier.ADVISORY else DECISIONS[speed.standing]
    return f"Speed ({speed.tier}: {word}): {speed.message}."


def length_rows(tasks: list[TaskVerdict]) -> list[LengthRow]:
    """Return how long each task's answers are, where they were counted."""
    return [_length_row(task.task, task.length) for task in tasks if task.length is not None]


def _length_row(task: str, length: LengthVerdict) -> LengthRow:
    is_critical = length.tier is Tier.CRITICAL
    decision = DECISIONS[length.standing]
    return LengthRow(
        task=task,
        tier=length.tier,
        baseline=_with_thoughts(length.baseline, length.baseline_thoughts),
        candidate=_with_thoughts(length.candidate, length.candidate_thoughts),
        ratio=f"{length.ratio:.3f}",
        interval=_interval(length),
        band=f"{100 * length.band:g} %",
        cut=f"{length.num_cut_baseline} / {length.num_cut_candidate}",
        kind=decision.lower() if is_critical else "advisory",
        word=decision if is_critical else length.standing,
    )


def _with_thoughts(tokens: float, thoughts: float | None) -> str:
    return f"{tokens:.1f}" + (f" ({thoughts:.1f})" if thoughts is not None else "")


def _interval(length: LengthVerdict) -> str:
    return f"{length.low:.3f} to {length.high:.3f}"


def sampled_rows(tasks: list[TaskVerdict]) -> list[SampledRow]:
    """Return pass@1 and what is said beside it, of tasks whose items are asked several times."""
    rows = []
    for task in tasks:
        if task.repeats == 1 and not task.estimates:
            continue
        asked = f"{task.num_items} items, {task.repeats} times each"
        rows.append(
            SampledRow(task.task, asked, "pass@1", percent(task.baseline), percent(task.candidate))
        )
        rows += [
            SampledRow(task.task, "", one.name, percent(one.baseline), percent(one.candidate))
            for one in task.estimates
        ]
    return rows


def ending_rows(record: RunRecord) -> list[EndingRow]:
    """Return how answers ended, of tasks where some did not end by themselves, or were drawn."""
    cards = [card for card in (record.baseline, record.candidate) if card is not None]
    unusual = [score.task for card in cards for score in card.tasks if _is_unusual(score)]
    return [
        EndingRow(name, card.arm, _endings(score))
        for name in dict.fromkeys(unusual)
        for card in cards
        if (score := _score_of(card, name)) is not None
    ]


def _score_of(card: Scorecard, task: str) -> TaskScore | None:
    return next((score for score in card.tasks if score.task == task), None)


def _is_unusual(score: TaskScore) -> bool:
    return score.repeats > 1 or any(
        count for ending, count in score.finishes.items() if ending not in _USUAL
    )


def _endings(score: TaskScore) -> str:
    often_first = sorted(score.finishes.items(), key=lambda one: -one[1])
    return ", ".join(
        f"{count} {ending.replace('_', ' ')}" for ending, count in often_first if count
    )
