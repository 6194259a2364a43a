"""`harness diff`: two runs beside each other, what could have caused the difference first."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.artifacts import (
    Difference,
    FlippedItem,
    Part,
    RunDifference,
    Scale,
    TaskDifference,
    TensorChange,
    TensorGroup,
    to_json,
)
from harness.cli.console import Result
from harness.comparing import WHOLE, compare_runs

_MOST_LINES = 12
"""Of one part that differs; --json has all of them."""
_MOST_TEXT = 300
"""Characters of a prompt's end, and of an answer."""
_INDENT = "    "
_SHA256 = "sha256"


def differ(a: Path, b: Path, max_flips: int) -> Result:
    """Compare two runs."""
    found = compare_runs(a, b, max_flips=max_flips)
    return Result(text=of_difference(found), values=to_json(found))


def of_difference(found: RunDifference) -> str:
    """Describe two runs beside each other."""
    return "\n".join(
        [
            *_causes(found),
            "",
            *_runs(found),
            *_section("scores of the candidates, B beside A", _tasks(found.tasks)),
            *_section("scores of the baselines", _tasks(_moved(found.baseline_tasks))),
            *_section(f"tensors: {found.tensors_note}", _tensors(found.tensors)),
            *_section("all that differs", _differences(found.differences)),
            *_section(_head_of_flips(found), _flips(found.flips)),
        ]
    )


def _section(head: str, lines: Iterator[str]) -> list[str]:
    shown = list(lines)
    return ["", head, *shown] if shown or head.startswith("tensors: ") else []


def _causes(found: RunDifference) -> Iterator[str]:
    yield found.outcome
    if found.causes:
        yield "what could have caused it, the most direct first:"
    elif found.outcome.startswith("nothing"):
        pass
    else:
        yield (
            "nothing that both runs record could have caused it: the answers are not the same each "
            "time, or what differs is not recorded (see `not recorded` below)"
        )
    for number, cause in enumerate(found.causes, 1):
        yield f"  {number}. {cause.part}{_through(cause.through)}"
        yield from (f"       {line}" for line in _bounded(list(map(_line, cause.differences))))
        if cause.part is Part.CHECKPOINT or Part.CHECKPOINT in cause.through:
            yield from (f"       {line}" for line in _moved_scales(found))
    if found.without_effect:
        yield f"differ, and changed nothing of it: {', '.join(found.without_effect)}"
    yield f"the same: {', '.join(found.same) or 'nothing'}"
    if found.unknown:
        yield f"not recorded by both: {', '.join(found.unknown)}"


def _through(way: Sequence[Part]) -> str:
    return f" (through {', '.join(way)})" if way else ""


def _moved_scales(found: RunDifference) -> list[str]:
    """Name the one group of tensors that says most, where any changed."""
    return [f"tensors: {found.tensors_note}"] if found.tensors else []


def _runs(found: RunDifference) -> Iterator[str]:
    for letter, run in (("A", found.a), ("B", found.b)):
        yield f"{letter}: {run.place}: {run.ending}"
        yield f"   {run.name}"
        yield from ([f"   {run.summary}"] if run.summary else [])
        yield from (f"   not compared, or not as it was: {note}" for note in run.notes)


def _line(one: Difference) -> str:
    if _SHA256 in (one.what, one.what.rpartition(" ")[2]) and one.a and one.b:
        return f"{one.what}: {one.a:.12} -> {one.b:.12}"
    if one.a is None or one.b is None:
        where, value = ("A", one.a) if one.b is None else ("B", one.b)
        return f"{one.what}: only in {where}" + ("" if value == WHOLE else f", {value}")
    return f"{one.what}: {one.a} -> {one.b}"


def _bounded(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more, all of them with --json"]


def _moved(tasks: Sequence[TaskDifference]) -> list[TaskDifference]:
    """Return those that are not the same in both runs."""
    both = [t for t in tasks if t.a is not None and t.b is not None]
    return [t for t in both if t.num_lost or t.num_won or t.num_reworded or t.a != t.b or t.note]


def _tasks(tasks: Sequence[TaskDifference]) -> Iterator[str]:
    if not tasks:
        return
    yield (
        f"  {'task':<24} {'A':>8} {'B':>8} {'items':>6} {'lost':>5} {'won':>5} {'reworded':>8}"
        f"  {'B - A':>7}  95 % bounds"
    )
    for task in tasks:
        counts = f"{task.num_items:>6} {task.num_lost:>5} {task.num_won:>5} {task.num_reworded:>8}"
        head = f"  {task.task:<24} {_score(task, task.a):>8} {_score(task, task.b):>8} {counts}"
        yield f"{head}  {_interval(task)}".rstrip()
        if task.note:
            yield f"{_INDENT}{task.note}"


def _score(task: TaskDifference, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if task.scale is Scale.SHARE else f"{value:.5g}"


def _interval(task: TaskDifference) -> str:
    if task.difference is None:
        return ""
    bounds = ""
    if task.low is not None and task.high is not None:
        bounds = f"  {100 * task.low:+.2f} .. {100 * task.high:+.2f}"
    return f"{100 * task.difference:>+7.2f}{bounds}"


def _tensors(groups: Sequence[TensorGroup]) -> Iterator[str]:
    lines = []
    for group in groups:
        of = f" of {group.num_tensors + group.num_alike}" if group.num_alike else ""
        lines.append(f"  {group.num_tensors}{of} x {group.pattern}: {_what_became(group)}")
        if group.change is TensorChange.RETYPED:
            lines.append(f"{_INDENT}  e.g. {group.examples[0]}")
    yield from _bounded(lines)


def _what_became(group: TensorGroup) -> str:
    said = [group.change.value]
    if group.ratio is not None:
        low, middle, high = (f"{ratio:.4g}" for ratio in group.ratio)
        span = low if low == high else f"{low} to {high} (median {middle})"
        said.append(f"B is {span} times A")
    if group.share is not None:
        said.append(f"{group.share:.2%} of their values")
    if group.num_unusual:
        said.append(f"{group.num_unusual} are zero, negative or not finite in A or B")
    return ", ".join(said)


def _differences(differences: Sequence[Difference]) -> Iterator[str]:
    for part in dict.fromkeys(one.part for one in differences):
        yield f"  {part}"
        lines = [_line(one) for one in differences if one.part is part]
        yield from (f"{_INDENT}{line}" for line in _bounded(lines))


def _head_of_flips(found: RunDifference) -> str:
    shown = len(found.flips)
    rest = f", {shown} of them" if shown < found.num_flips else ""
    return f"items that are scored otherwise: {found.num_flips}{rest}"


def _flips(flips: Sequence[FlippedItem]) -> Iterator[str]:
    for flip in flips:
        yield f"  {flip.task}, item {flip.doc_id}: {'lost' if flip.lost else 'won'} in B"
        yield f"{_INDENT}asked    {_end(flip.prompt)}"
        yield f"{_INDENT}expected {_end(flip.target)}"
        yield f"{_INDENT}A        {_start(flip.a)}"
        yield f"{_INDENT}B        {_start(flip.b)}"


def _end(text: str) -> str:
    return ("..." if len(text) > _MOST_TEXT else "") + repr(text[-_MOST_TEXT:])


def _start(text: str) -> str:
    return repr(text[:_MOST_TEXT]) + ("..." if len(text) > _MOST_TEXT else "")
