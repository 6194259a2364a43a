"""Numbers and text as the reports spell them."""

import math
import re
from collections.abc import Mapping

from harness.artifacts import Decision, Scale, Standing, TaskVerdict, Tier, Verdict

DECISIONS: Mapping[Standing, Decision] = {
    Standing.WITHIN: Decision.GO,
    Standing.UNCLEAR: Decision.INCONCLUSIVE,
    Standing.BEYOND: Decision.NO_GO,
}
"""What a standing decides where it is critical."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")
_MAX_TEXT = 700
_BEYOND_PERCENT = 10.0
"""Ratios from which on a rise is not spelled in percent."""
_MIB = 1 << 20
_GIB = 1 << 30


def decision_word(task: TaskVerdict) -> str:
    """Name a task's decision; an advisory task decides nothing, so it gets other words."""
    if task.tier is Tier.CRITICAL:
        return task.decision
    words = {
        Decision.GO: "within",
        Decision.INCONCLUSIVE: "unclear",
        Decision.NO_GO: "beyond",
    }
    return words[task.decision]


def decision_class(task: TaskVerdict) -> str:
    """Return the CSS class of a task's decision; `advisory` for tasks that do not gate."""
    return task.decision.lower() if task.tier is Tier.CRITICAL else "advisory"


def score(value: float | None, scale: Scale) -> str:
    """Spell a task's score in its unit: a perplexity is no percentage."""
    if value is None or scale is Scale.SHARE:
        return percent(value)
    return f"{value:.5g}" if scale is Scale.PERPLEXITY else f"{value:.4f} bits"


def baseline(task: TaskVerdict) -> str:
    """Spell the baseline's score."""
    return score(task.baseline, task.scale)


def candidate(task: TaskVerdict) -> str:
    """Spell the candidate's score."""
    return score(task.candidate, task.scale)


def difference(task: TaskVerdict) -> str:
    """Spell the difference in points; of a perplexity its rise in percent."""
    if task.scale is Scale.SHARE:
        return points(task.difference)
    return "-" if task.ratio is None else f"{rise(task.ratio.observed)} %"


def interval(task: TaskVerdict) -> str:
    """Spell the interval of a task's difference; of a perplexity that of its rise in percent."""
    if task.ratio is not None:
        return f"{rise(task.ratio.low)} to {rise(task.ratio.high)} %"
    if task.low is None or task.high is None:
        return "-"
    return f"{points(task.low)} to {points(task.high)}"


def margin(task: TaskVerdict) -> str:
    """Spell the difference that is allowed; of a perplexity the rise."""
    if task.scale is Scale.SHARE:
        return points(-task.margin)
    return f"{100 * math.expm1(task.margin):+.2f} %"


def rise(ratio: float) -> str:
    """Spell a ratio of perplexities as a signed rise in percent."""
    return f"{100 * (ratio - 1):+.2f}" if ratio < _BEYOND_PERCENT else f"x {ratio:.3g}"


def flips(task: TaskVerdict) -> str:
    """Spell the items that were lost and won, and how many flip when the baseline runs again.

    Documents are only more or less likely.
    """
    if task.scale is not Scale.SHARE:
        return f"{task.num_lost} less likely, {task.num_won} more"
    again = task.rerun_flip_rate
    return f"{task.num_lost} / {task.num_won}" + (
        "" if again is None else f" (rerun {percent(again)})"
    )


def explanation(task: TaskVerdict) -> str:
    """Return the evidence in words; nothing where the numbers beside it say all."""
    forms = (task.recovery, task.p_value, task.num_clusters, task.ratio)
    is_simple = all(form is None for form in forms)
    return "" if task.decision is Decision.GO and is_simple else task.message


def pooled_note(verdict: Verdict | None) -> str | None:
    """Say what all items together show."""
    pooled = verdict.pooled if verdict else None
    if pooled is None:
        return None
    word = pooled.decision if pooled.margin is not None else "warning" if pooled.alarm else "quiet"
    return f"All tasks together ({word}): {pooled.message}."


def percent(fraction: float | None) -> str:
    """Spell a fraction of 1 as percent."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def points(fraction: float | None) -> str:
    """Spell a fraction of 1 as signed percentage points."""
    return "-" if fraction is None else f"{100 * fraction:+.2f}"


def size(num_bytes: int) -> str:
    """Spell a number of bytes."""
    if num_bytes >= _GIB:
        return f"{num_bytes / _GIB:.2f} GiB"
    return f"{num_bytes / _MIB:.2f} MiB"


def seconds(value: float) -> str:
    """Spell a duration."""
    minutes, rest = divmod(value, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def visible(text: str) -> str:
    """Replace characters that neither HTML nor XML may hold, such as those of token salad."""
    return _CONTROL.sub("\ufffd", text)


def ending(text: str) -> str:
    """Return the end of a long text, which is where a prompt asks."""
    text = visible(text)
    return text if len(text) <= _MAX_TEXT else f"[...]{text[-_MAX_TEXT:]}"


def beginning(text: str) -> str:
    """Return the beginning of a long text, which is where an answer answers."""
    text = visible(text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}[...]"


def cell(text: object) -> str:
    """Return text that stays within one cell of a Markdown table."""
    return visible(str(text)).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
