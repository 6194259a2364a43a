"""The verdict's numbers as a plain table of at most 100 columns."""

from textwrap import wrap

from harness.artifacts import Scale, Standing, TaskVerdict, Verdict
from harness.report.costs import speed_note
from harness.report.words import decision_word, difference, margin, pooled_note, rise, score

_COLUMNS = "{:<20} {:<9} {:>9} {:>9} {:>7}  {:^17} {:>7}  {}"
_NAME_WIDTH = 20
_WIDTH = 100


def terminal_table(verdict: Verdict) -> str:
    """Return one line a task: accuracies, difference and interval in points, and the decision.

    What the columns cannot say follows, a sentence a line.

    Advisory tasks are `within`, `beyond` or `unclear` with respect to their margin.
    """
    if not verdict.tasks:
        return ""
    head = ("task", "tier", "baseline", "candidate", "diff", "interval", "margin", "decision")
    rows = [_COLUMNS.format(*head), *(_row(task) for task in verdict.tasks)]
    return "\n".join([*rows, *_footnotes(verdict)])


def _footnotes(verdict: Verdict) -> list[str]:
    """Say what the rows leave out: recoveries, p values, flips, and all tasks together."""
    notes = [
        f"{task.task}: {task.message}"
        for task in verdict.tasks
        if task.recovery is not None or task.p_value is not None or task.scale is not Scale.SHARE
    ]
    if verdict.flip_rate is not None:
        again = verdict.rerun_flip_rate
        beside = "" if again is None else f"; of the baseline's own when run again, {again:.2%}"
        notes.append(f"{verdict.flip_rate:.2%} of the answers flipped{beside}")
    notes += [pooled_note(verdict) or "", *_costs(verdict), speed_note(verdict)]
    notes = [note for note in notes if note]
    return [line for text in notes for line in wrap(text, _WIDTH, subsequent_indent="  ")]


def _costs(verdict: Verdict) -> list[str]:
    """Say how long answers are, task by task where that is not within its band, and how large."""
    notes = [
        f"{task.task}: {task.length.message} ({task.length.tier}: {task.length.standing})"
        for task in verdict.tasks
        if task.length is not None and task.length.standing is not Standing.WITHIN
    ]
    if verdict.length is not None:
        notes.append(f"Over all generated tasks {verdict.length.message}")
    return [*notes, *([verdict.size.message] if verdict.size else [])]


def _row(task: TaskVerdict) -> str:
    return _COLUMNS.format(
        task.task if len(task.task) <= _NAME_WIDTH else f"{task.task[: _NAME_WIDTH - 2]}..",
        task.tier,
        _score(task.baseline, task.scale),
        _score(task.candidate, task.scale),
        difference(task).replace(" ", ""),
        _interval(task),
        margin(task).replace(" ", ""),
        decision_word(task),
    ).rstrip()


def _interval(task: TaskVerdict) -> str:
    if task.ratio is not None:
        return f"{rise(task.ratio.low)} .. {rise(task.ratio.high)}%"
    if task.low is None or task.high is None:
        return "-"
    return f"{100 * task.low:+.2f} .. {100 * task.high:+.2f}"


def _score(value: float | None, scale: Scale) -> str:
    return score(value, scale).replace(" %", "%").removesuffix(" bits")
