"""The report's plots, as SVG that sits inside the page.

Colours are written as placeholders and replaced by the page's variables, so that a plot follows
the reader's light or dark setting; text stays text. The same record gives the same bytes: no
date, and identifiers are hashed with a fixed salt, another one for each plot because all of them
share one page.
"""

import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.artifacts import (
    CalibrationStats,
    Decision,
    ExpertCoverage,
    LengthVerdict,
    TaskVerdict,
    Tier,
)
from harness.report.words import DECISIONS

INK, MUTED, _GRID = "#010203", "#040506", "#070809"
_COLOURS = {
    Decision.GO: "#0a0b0c",
    Decision.INCONCLUSIVE: "#0d0e0f",
    Decision.NO_GO: "#101112",
}
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _COLOURS[Decision.GO]: "var(--go)",
    _COLOURS[Decision.INCONCLUSIVE]: "var(--inconclusive)",
    _COLOURS[Decision.NO_GO]: "var(--no-go)",
}
SERIES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#888888")
"""Paul Tol's bright scheme, which is safe for colour-blind readers and visible on both grounds."""
_UNSEEN = "#d43d2f"
_WIDE = 10
"""Counts that differ by more than this factor are coloured by their logarithm."""
_LONGEST_NAME = 32
"""Of a task in a plot; its table has all of it."""
_FAR = 4
"""Ratios that differ by more than this factor are drawn by their logarithm."""
_FONT = re.compile(r"font: (?:\w+ )?(?P<size>[\d.]+)px [^;\"]*")
_LAYER = re.compile(r"(?:^|\.)layers\.(?P<layer>\d+)\.(?P<rest>.+)$")
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}


def plot_differences(tasks: Sequence[TaskVerdict]) -> Markup | None:
    """Draw each task's interval of the difference against its margin; None without any."""
    known = [t for t in tasks if t.difference is not None]
    if not known:
        return None
    with mpl.rc_context(SETTINGS | {"svg.hashsalt": "differences"}):
        figure = Figure(figsize=(9.2, 1.1 + 0.42 * len(known)), layout="constrained")
        axes = figure.add_subplot()
        for row, task in enumerate(known):
            _draw_difference(axes, row, task)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(known)), [_label(t) for t in known])
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        figure.supxlabel(
            "candidate minus baseline, percentage points (perplexity: minus its rise in percent); "
            "| is the margin",
            fontsize=10,
        )
        return as_svg(figure, "Difference of each task with its interval, against the margin")


def _draw_difference(axes: Axes, row: int, task: TaskVerdict) -> None:
    low, high, difference = task.low or 0.0, task.high or 0.0, task.difference or 0.0
    colour = _COLOURS[task.decision] if task.tier is Tier.CRITICAL else MUTED
    axes.hlines(row, 100 * low, 100 * high, color=colour, linewidth=3)
    axes.plot(100 * difference, row, "o", color=colour, markersize=7)
    axes.vlines(-100 * task.margin, row - 0.3, row + 0.3, color=INK, linewidth=2)


def plot_lengths(tasks: Sequence[TaskVerdict]) -> Markup | None:
    """Draw the interval of each task's ratio of lengths against its band; None without any."""
    known = [(task, task.length) for task in tasks if task.length is not None]
    if not known:
        return None
    with mpl.rc_context(SETTINGS | {"svg.hashsalt": "lengths"}):
        figure = Figure(figsize=(9.2, 1.1 + 0.42 * len(known)), layout="constrained")
        axes = figure.add_subplot()
        for row, (_, length) in enumerate(known):
            _draw_length(axes, row, length)
        axes.axvline(1, color=MUTED, linewidth=1)
        if max(one.high for _, one in known) > _FAR * min(one.low for _, one in known):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_yticks(range(len(known)), [_named(task.task, one.tier) for task, one in known])
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        figure.supxlabel("tokens of an answer, candidate / baseline; | is the band", fontsize=10)
        return as_svg(figure, "Ratio of the answers' lengths with its interval, against the band")


def _draw_length(axes: Axes, row: int, length: LengthVerdict) -> None:
    is_critical = length.tier is Tier.CRITICAL
    colour = _COLOURS[DECISIONS[length.standing]] if is_critical else MUTED
    axes.hlines(row, length.low, length.high, color=colour, linewidth=3)
    axes.plot(length.ratio, row, "o", color=colour, markersize=7)
    for edge in (1 / (1 + length.band), 1 + length.band):
        axes.vlines(edge, row - 0.3, row + 0.3, color=INK, linewidth=2)


def _label(task: TaskVerdict) -> str:
    return _named(task.task, task.tier)


def _named(task: str, tier: Tier) -> str:
    short = task if len(task) <= _LONGEST_NAME else f"{task[: _LONGEST_NAME - 3]}..."
    return short if tier is Tier.CRITICAL else f"{short} (advisory)"


def plot_coverage(coverage: Sequence[ExpertCoverage]) -> Markup | None:
    """Draw the tokens that reached each expert of each layer; None without any expert."""
    first = coverage[0].projection if coverage else ""
    rows = [layer for layer in coverage if layer.projection == first]
    most = max((max(layer.tokens, default=0) for layer in rows), default=0)
    width = max((len(layer.tokens) for layer in rows), default=0)
    if not most:
        return None
    counts = [[*(n or math.nan for n in row.tokens)] for row in rows]
    counts = [[*row, *[math.nan] * (width - len(row))] for row in counts]
    least = min(n for row in rows for n in row.tokens if n)
    is_wide = most > _WIDE * least
    with mpl.rc_context(SETTINGS | {"svg.hashsalt": "coverage", "axes.grid": False}):
        height = min(max(0.24 * len(rows), 1.0), 9.0)
        figure = Figure(figsize=(9.2, 1.1 + height), layout="constrained")
        axes = figure.add_subplot()
        colours = mpl.colormaps["viridis"].with_extremes(bad=_UNSEEN)
        image = axes.imshow(
            counts,
            aspect="auto",
            interpolation="none",
            cmap=colours,
            norm=(LogNorm if is_wide else Normalize)(vmin=least, vmax=max(most, least + 1)),
        )
        axes.set_yticks(*_layer_ticks([row.experts for row in rows]))
        axes.set_xlabel("expert")
        axes.set_ylabel("layer")
        figure.colorbar(image, ax=axes, label="tokens", fraction=0.03, pad=0.01)
        return as_svg(figure, "Tokens that reached each expert of each layer in calibration")


def _layer_ticks(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return at most about a dozen positions with their layer numbers."""
    step = max(len(names) // 12, 1)
    positions = list(range(0, len(names), step))
    found = [_LAYER.search(f"{names[position]}.") for position in positions]
    return positions, [f["layer"] if f else "?" for f in found]


def plot_scales(scales: Mapping[str, tuple[float, float]], *, label: str) -> Markup | None:
    """Draw the range of what `label` names by layer, one colour a kind; None without any."""
    series = _series(scales)
    if not series:
        return None
    with mpl.rc_context(SETTINGS | {"svg.hashsalt": "scales"}):
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for number, (kinds, ranges) in enumerate(series.items()):
            layers, lows, highs = zip(*ranges, strict=True)
            colour = SERIES[number % len(SERIES)]
            marker = "osD^vPX*"[number // len(SERIES) % 8]
            axes.vlines(layers, lows, highs, color=colour, linewidth=2)
            axes.plot(
                layers, highs, color=colour, marker=marker, markersize=4, linewidth=1, label=kinds
            )
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(label)
        figure.legend(loc="outside right upper", fontsize=9)
        return as_svg(figure, f"{label} by layer and kind")


def _series(
    scales: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[tuple[int, float, float], ...]]:
    """Return layers and ranges by kind; kinds that read one input, and so agree, become one."""
    kinds: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for name, (low, high) in scales.items():
        layer, _, kind = name.partition(".")
        if layer.isdigit() and low > 0:
            kinds[kind].append((int(layer), low, high))
    alike: dict[tuple[tuple[int, float, float], ...], list[str]] = defaultdict(list)
    for kind, ranges in sorted(kinds.items()):
        alike[tuple(sorted(ranges))].append(kind)
    return {_joined(names): ranges for ranges, names in alike.items()}


def _joined(kinds: Sequence[str]) -> str:
    """Return `experts.gate_proj, up_proj` for two kinds of one block."""
    labels, last = [], ""
    for kind in kinds:
        block, _, name = kind.rpartition(".")
        labels.append(name if block == last else kind)
        last = block
    return ", ".join(labels)


def input_amax_ranges(stats: CalibrationStats) -> dict[str, tuple[float, float]]:
    """Return the inputs' largest values by layer and kind, for runs without input scales."""
    ranges: dict[str, tuple[float, float]] = {}
    for name, amax in stats.input_amax.items():
        found = _LAYER.search(name)
        if found:
            parts = [p for p in found["rest"].split(".") if not p.isdigit()]
            kind = ".".join(parts[-2:]).removesuffix("_input_quantizer")
            key = f"{found['layer']}.{kind.removesuffix('.input_quantizer')}"
            low, high = ranges.get(key, (amax, amax))
            ranges[key] = (min(low, amax), max(high, amax))
    return ranges


def as_svg(figure: Figure, title: str) -> Markup:
    """Return the figure as an SVG element that follows the page's colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    text = _FONT.sub(lambda found: f"font: {found['size']}px system-ui, sans-serif", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return Markup(text)  # noqa: S704  drawn here; matplotlib escapes the labels
