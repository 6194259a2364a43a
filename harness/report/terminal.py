"""The verdict's numbers as a plain table of at most 100 columns."""

from harness.artifacts import TaskVerdict, Verdict
from harness.report.words import decision_word

_COLUMNS = "{:<20} {:<9} {:>9} {:>9} {:>7}  {:^17} {:>7}  {}"
_NAME_WIDTH = 20


def terminal_table(verdict: Verdict) -> str:
    """Return one line a task: accuracies, difference and interval in points, and the decision.

    Advisory tasks are `within`, `beyond` or `unclear` with respect to their margin.
    """
    if not verdict.tasks:
        return ""
    head = ("task", "tier", "baseline", "candidate", "diff", "interval", "margin", "decision")
    return "\n".join([_COLUMNS.format(*head), *(_row(task) for task in verdict.tasks)])


def _row(task: TaskVerdict) -> str:
    interval = "-"
    if task.low is not None and task.high is not None:
        interval = f"{100 * task.low:+.2f} .. {100 * task.high:+.2f}"
    difference = "-" if task.difference is None else f"{100 * task.difference:+.2f}"
    return _COLUMNS.format(
        task.task if len(task.task) <= _NAME_WIDTH else f"{task.task[: _NAME_WIDTH - 2]}..",
        task.tier,
        _accuracy(task.baseline),
        _accuracy(task.candidate),
        difference,
        interval,
        f"{-100 * task.margin:+.2f}",
        decision_word(task),
    ).rstrip()


def _accuracy(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.2%}"
