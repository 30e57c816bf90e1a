"""The inference space as panels: prompt and decode on logarithmic axes, a column a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from joulelab.analysis.space.surface import Grid
from joulelab.calibration.integrals import Floats, Ints
from joulelab.report.figures import WIDTH_IN

PANEL_IN = 2.9
WIDE = 64
"""Beyond this ratio of its ends an axis has a tick every other octave."""
GREY = (0.88, 0.88, 0.88)
PALE = 0.7
"""How much of a colour turns grey where it is not to be relied on."""
UNSEEN: dict[str, Any] = {"facecolor": "white", "edgecolor": "#999999", "hatch": "////", "linewidth": 0}
OUTSIDE = "outside what was measured"
_Where = Literal["outside upper center", "outside lower center"]


def columns(grid: Grid, rows: int) -> tuple[Figure, Any]:
    """A figure with panels [rows, histories]."""
    number = len(grid.history)
    figure = Figure((width_in(number), 2.6 * rows + 1.2), layout="constrained")
    return figure, figure.subplots(rows, number, squeeze=False, sharex=True, sharey=True)


def width_in(columns: int) -> float:
    """In inches, with room for the legends."""
    return min(max(PANEL_IN * columns, 8.5), WIDTH_IN)


def draw(axes: Axes, grid: Grid, colours: Floats) -> None:
    """An image [P, O, RGBA] on logarithmic axes; what is transparent shows as not seen."""
    axes.set(xscale="log", yscale="log", xlim=_edges(grid.prompt)[[0, -1]], ylim=_edges(grid.output)[[0, -1]])
    axes.grid(visible=False)
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, zorder=0, **UNSEEN))
    axes.pcolormesh(_edges(grid.prompt), _edges(grid.output), colours.swapaxes(0, 1), rasterized=True, zorder=1)


def _edges(axis: Ints) -> Floats:
    """Between the points of an axis, and beyond its ends."""
    logs = np.log2(axis)
    middles = (logs[1:] + logs[:-1]) / 2
    return np.asarray(2 ** np.concatenate([[2 * logs[0] - middles[0]], middles, [2 * logs[-1] - middles[-1]]]))


def greyed(colours: Floats, where: Any) -> Floats:
    """Pale where it is true."""
    return np.where(np.asarray(where)[..., None], (1 - PALE) * colours + PALE * np.array(GREY), colours)


def with_alpha(colours: Floats, shown: Any) -> Floats:
    return np.concatenate([colours, np.asarray(shown, np.float64)[..., None]], axis=-1)


def label(panels: Any, grid: Grid) -> None:
    for axes in panels.flat:
        powers(axes.xaxis)
        powers(axes.yaxis)
    for axes, history in zip(panels[0], grid.history, strict=True):
        axes.set_title(f"history {history}")
    for axes in panels[-1]:
        axes.set_xlabel("prompt [tokens]")
    for axes in panels[:, 0]:
        axes.set_ylabel("decode [tokens]")


def powers(axis: Axis) -> None:
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(base=4 if high > WIDE * low else 2, numticks=9))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def legend(figure: Figure, where: _Where, title: str, handles: Sequence[Any], columns: int) -> None:
    legend = figure.legend(handles=handles, loc=where, ncols=columns, title=title)
    legend.get_title().set(fontsize=10, fontweight="bold")


def patches(colours: dict[str, Any]) -> list[Patch]:
    return [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
