"""The trend page's plots: a small one for each task and each measure of a cell, as plain SVG.

Colours are the page's variables and every kind of point has a shape of its own, so that a plot
follows the reader's light or dark setting and needs no colour to be read. What a plot shows stands
in words beside it, so the drawing itself is one picture to a screen reader.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from markupsafe import Markup

from harness.artifacts import Alarm, AlarmCause, CellEnding, NightRow, Scale, TaskNight
from harness.report import words
from harness.report.trend_nights import is_waived, short_night

WIDTH, HEIGHT = 340, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, WIDTH - 10, 18, HEIGHT - 24
_SIZE = 3.6
"""Half the width of a point."""

_WIDEST = 10
"""Characters that an axis has room for."""


class Point(NamedTuple):
    """One run in a plot."""

    place: int
    """Number of its night."""
    value: float | None
    shape: str
    is_counted: bool
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    allowed: float | None = None
    """The lowest value that the margin lets through."""


class Flag(NamedTuple):
    """From which night on an alarm says that something is so."""

    place: int
    is_real: bool


class Plot(NamedTuple):
    """One task or measure of a cell over the nights."""

    title: str
    latest: str
    """The newest value in words."""
    svg: Markup


class _Series(NamedTuple):
    title: str
    points: tuple[Point, ...]
    spell: Callable[[float], str]


def plots_of(
    rows: Sequence[NightRow], nights: Sequence[str], alarms: Sequence[Alarm]
) -> list[Plot]:
    """Draw each task, then each measure that any of a cell's runs has."""
    place_of = {night: place for place, night in enumerate(nights)}
    shown = [row for row in rows if row.night in place_of]
    tasks = dict.fromkeys(task.task for row in shown for task in row.tasks)
    measures = sorted({name for row in shown for name in row.measures}, key=_measure_rank)
    series = [*(_task_series(name, shown, place_of) for name in tasks)]
    series += [_measure_series(name, shown, place_of) for name in measures]
    return [_plot(one, nights, _flags(one.title, alarms, place_of)) for one in series]


def _task_series(name: str, rows: Sequence[NightRow], place_of: Mapping[str, int]) -> _Series:
    found = [(row, next((t for t in row.tasks if t.task == name), None)) for row in rows]
    scale = next(task.scale for _, task in found if task is not None)
    points = tuple(_task_point(place_of[row.night], row, task) for row, task in found)
    return _Series(name, points, lambda value: words.score(value, scale))


def _task_point(place: int, row: NightRow, task: TaskNight | None) -> Point:
    bare = Point(place, None, _shape(row), row.is_counted)
    if task is None:
        return bare
    bare = bare._replace(value=_known(task.candidate), baseline=_known(task.baseline))
    if task.scale is not Scale.SHARE or bare.value is None or bare.baseline is None:
        return bare  # bounds of another scale say nothing of the score
    low, high = _known(task.low), _known(task.high)
    return bare._replace(
        low=None if low is None else bare.baseline + low,
        high=None if high is None else bare.baseline + high,
        allowed=bare.baseline - task.margin,
    )


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


_MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "flip_rate": ("Answers that flipped", words.percent),
    "pooled_difference": ("Pooled difference, points", words.points),
    "kld": ("KL divergence, nats", lambda value: f"{value:.3g}"),
    "tokens_per_s": ("Tokens per second", lambda value: f"{value:,.4g}"),
    "memory_bytes": ("Memory", lambda value: words.size(round(value))),
    "load_s": ("Load time, seconds", lambda value: f"{value:.4g}"),
    "answer_tokens": ("Tokens per answer", lambda value: f"{value:.4g}"),
}
"""Title of each measure that is followed, in this order, and how it is spelled."""


def _measure_rank(name: str) -> tuple[int, str]:
    known = list(_MEASURES)
    return (known.index(name) if name in known else len(known), name)


def measure_title(name: str) -> str:
    """Return a measure's name in words."""
    return _MEASURES[name][0] if name in _MEASURES else name


def _measure_series(name: str, rows: Sequence[NightRow], place_of: Mapping[str, int]) -> _Series:
    points = tuple(
        Point(place_of[row.night], _known(row.measures.get(name)), _shape(row), row.is_counted)
        for row in rows
    )
    spell = _MEASURES[name][1] if name in _MEASURES else (lambda value: f"{value:.4g}")
    return _Series(name, points, spell)


def spelled(name: str, value: float) -> str:
    """Spell the value of a measure."""
    return _MEASURES[name][1](value) if name in _MEASURES else f"{value:.4g}"


def _shape(row: NightRow) -> str:
    if is_waived(row):
        return "square"
    shapes = {CellEnding.GO: "disc", CellEnding.NO_GO: "cross", CellEnding.INCONCLUSIVE: "diamond"}
    return shapes.get(row.ending, "bar")


def _flags(name: str, alarms: Sequence[Alarm], place_of: Mapping[str, int]) -> list[Flag]:
    """Return where the alarms of one task or measure begin; nobody is told of unconfirmed ones."""
    return [
        Flag(place_of.get(alarm.since, 0), alarm.cause is AlarmCause.REAL)
        for alarm in alarms
        if alarm.what == name and alarm.cause is not AlarmCause.UNCONFIRMED
    ]


class _Frame(NamedTuple):
    """Where a place and a value lie in the drawing."""

    num_nights: int
    low: float
    high: float

    def x(self, place: int) -> float:
        room = max(self.num_nights - 1, 1)
        middle = 0.5 if self.num_nights == 1 else place / room
        return _LEFT + 8 + middle * (_RIGHT - _LEFT - 16)

    def y(self, value: float) -> float:
        # Halves, so that the span of the largest floats is no infinity.
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return _BOTTOM - 6 - share * (_BOTTOM - _TOP - 12)


def _frame_of(series: _Series, num_nights: int) -> _Frame:
    values = [
        value
        for point in series.points
        for value in (point.value, point.low, point.high, point.baseline, point.allowed)
        if value is not None
    ]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        room = abs(low) * 0.01 or 1.0
        low, high = low - room, high + room
    return _Frame(num_nights, low, high)


def _plot(series: _Series, nights: Sequence[str], flags: Sequence[Flag]) -> Plot:
    frame = _frame_of(series, len(nights))
    latest = _latest(series, nights)
    title = measure_title(series.title)
    parts = [
        *_axes(series, frame, nights),
        *(_flag(frame, flag) for flag in flags),
        *_lines(series, frame),
        *(part for point in series.points for part in _drawn(frame, point)),
    ]
    label = quoteattr(words.visible(f"{title} over {len(nights)} nights. {latest}"))
    body = "".join(parts)
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={label}>'
    return Plot(words.visible(title), latest, Markup(f"{head}{body}</svg>"))  # noqa: S704  # escaped here


def _latest(series: _Series, nights: Sequence[str]) -> str:
    known = [point for point in series.points if point.value is not None and point.is_counted]
    if not known:
        return "No value yet."
    last = known[-1]
    said = f"{words.visible(nights[last.place])}: {series.spell(last.value or 0.0)}"
    if last.low is not None and last.high is not None:
        said += f" ({series.spell(last.low)} to {series.spell(last.high)})"
    if last.baseline is not None:
        said += f", baseline {series.spell(last.baseline)}"
    if last.allowed is not None:
        said += f", allowed from {series.spell(last.allowed)}"
    return said


def _axes(series: _Series, frame: _Frame, nights: Sequence[str]) -> Iterator[str]:
    for value in (frame.low, frame.high):
        y = frame.y(value)
        yield _line(_LEFT, y, _RIGHT, y, "grid")
        said = series.spell(value)
        yield _text(_LEFT - 4, y + 4, said if len(said) <= _WIDEST else f"{value:.2g}", "end")
    ends = sorted({0, len(nights) - 1})
    for place in ends:
        anchor = "middle" if len(ends) == 1 else ("start" if place == 0 else "end")
        yield _text(frame.x(place), HEIGHT - 6, short_night(nights[place]), anchor)


def _lines(series: _Series, frame: _Frame) -> Iterator[str]:
    """Yield the lines through counted runs; a night without a value breaks them."""
    counted = [point for point in series.points if point.is_counted]
    for kind, of in (
        ("allowed", lambda point: point.allowed),
        ("baseline", lambda point: point.baseline),
        ("value", lambda point: point.value),
    ):
        for stretch in _stretches(counted, of):
            places = " ".join(f"{frame.x(p):.1f},{frame.y(v):.1f}" for p, v in stretch)
            if len(stretch) > 1:
                yield f'<polyline class="{kind}" points="{places}"/>'


def _stretches(
    points: Sequence[Point], of: Callable[[Point], float | None]
) -> Iterator[list[tuple[int, float]]]:
    stretch: list[tuple[int, float]] = []
    for point in points:
        value = of(point)
        if value is None or (stretch and point.place > stretch[-1][0] + 1):
            yield stretch
            stretch = []
        if value is not None:
            stretch.append((point.place, value))
    yield stretch


def _flag(frame: _Frame, flag: Flag) -> str:
    x = frame.x(flag.place)
    kind = "alarm" if flag.is_real else "settled"
    top = f"{x:.1f},{_TOP - 4} {x - 5:.1f},{_TOP - 13} {x + 5:.1f},{_TOP - 13}"
    return f'{_line(x, _TOP - 4, x, _BOTTOM, kind)}<polygon class="{kind}" points="{top}"/>'


def _drawn(frame: _Frame, point: Point) -> Iterator[str]:
    """Yield a point with its interval; a run without a value is a bar at the foot."""
    x = frame.x(point.place)
    if point.value is None:
        yield _line(x, _BOTTOM - 2, x, _BOTTOM + 6, "none")
        return
    if point.low is not None and point.high is not None:
        yield _line(x, frame.y(point.low), x, frame.y(point.high), "interval")
    shape = point.shape if point.is_counted else "ring"
    yield SHAPES[shape](x, frame.y(point.value))


def _disc(x: float, y: float) -> str:
    return f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="{_SIZE}"/>'


def _ring(x: float, y: float) -> str:
    return f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{_SIZE - 0.6:.1f}"/>'


def _cross(x: float, y: float) -> str:
    a, b, c, d = x - 4.5, x + 4.5, y - 4.5, y + 4.5
    strokes = f"M{a:.1f} {c:.1f}L{b:.1f} {d:.1f}M{a:.1f} {d:.1f}L{b:.1f} {c:.1f}"
    return f'<path class="cross" d="{strokes}"/>'


def _diamond(x: float, y: float) -> str:
    s = _SIZE + 1.4
    places = f"{x:.1f},{y - s:.1f} {x + s:.1f},{y:.1f} {x:.1f},{y + s:.1f} {x - s:.1f},{y:.1f}"
    return f'<polygon class="diamond" points="{places}"/>'


def _square(x: float, y: float) -> str:
    side, corner = 2 * _SIZE, f'x="{x - _SIZE:.1f}" y="{y - _SIZE:.1f}"'
    return f'<rect class="square" {corner} width="{side}" height="{side}"/>'


def _bar(x: float, y: float) -> str:
    return _line(x, y - _SIZE, x, y + _SIZE, "none")


SHAPES: dict[str, Callable[[float, float], str]] = {
    "disc": _disc,
    "ring": _ring,
    "cross": _cross,
    "diamond": _diamond,
    "square": _square,
    "bar": _bar,
}


def key_of(shape: str) -> Markup:
    """Draw one shape alone, for the page's key."""
    drawn = SHAPES[shape](9, 8)
    return Markup(f'<svg class="key" viewBox="0 0 18 16" aria-hidden="true">{drawn}</svg>')  # noqa: S704  # ours


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    said = escape(words.visible(text))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'
