"""The frontier of a tuning as an SVG file of its own: bits a weight against divergence."""

import re

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.artifacts import Frontier, Point
from harness.report.plots import INK, MUTED, SERIES, SETTINGS, as_svg

_VARIABLE = re.compile(r"var\(--(?P<name>[a-z-]+)\)")
_COLOURS = {"ink": "#1a1a1a", "muted": "#666666", "line": "#dddddd"}
"""Of what a plot in the report takes from its page: this one stands alone."""


def plot_frontier(frontier: Frontier, chosen: Point) -> str:
    """Draw sums over units as a line, whole recipes as marks with their errors."""
    with mpl.rc_context(SETTINGS | {"svg.hashsalt": "frontier"}):
        figure = Figure(figsize=(9.2, 4.6), layout="constrained")
        axes, drawn = figure.add_subplot(), (*frontier.points, *frontier.uniform)
        known = [one for one in frontier.points if one.kld > 0]
        axes.plot(
            [one.bits for one in known],
            [one.kld for one in known],
            color=MUTED,
            linewidth=1,
            label="sum over units",
        )
        _marks(axes, frontier.points, "o", SERIES[0], "tuned, measured as a whole")
        _marks(axes, frontier.uniform, "s", SERIES[1], "one format, measured as a whole")
        for one in frontier.uniform:
            if one.measured:
                axes.annotate(one.name, (one.bits, one.measured), color=INK, fontsize=9)
        axes.axvline(chosen.bits, color=MUTED, linestyle=":", linewidth=1)
        if any(value for one in drawn for value in (one.kld, one.measured)):
            axes.set_yscale("log")
        axes.set_xlabel("stored bits a weight, scales included")
        axes.set_ylabel("KLD from the unquantized model, nats a token")
        figure.legend(loc="outside upper right", ncols=3, fontsize=9)
        svg = as_svg(figure, "Divergence of tuned recipes by their bits a weight")
    coloured = _VARIABLE.sub(lambda found: _COLOURS[found["name"]], svg)
    return coloured.replace("<svg ", '<svg style="background:#ffffff" ', 1)


def _marks(axes: Axes, points: tuple[Point, ...], marker: str, colour: str, label: str) -> None:
    known = [one for one in points if one.measured]
    if known:
        axes.errorbar(
            [one.bits for one in known],
            [one.measured or 0.0 for one in known],
            yerr=[one.stderr or 0.0 for one in known],
            fmt=marker,
            markersize=5,
            color=colour,
            label=label,
        )
