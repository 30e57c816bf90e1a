"""Pictures of the inference space: which device is best where, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from joulelab.analysis.space.aims import Aim
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.analysis.space.regions import NONE, SURE, Costs, Regions
from joulelab.calibration.integrals import Floats
from joulelab.report.figures import LINES, Picture, picture
from joulelab.report.plane import (
    GREY,
    OUTSIDE,
    UNSEEN,
    columns,
    draw,
    greyed,
    label,
    legend,
    patches,
    powers,
    width_in,
    with_alpha,
)

NAMES = {
    "latency": "latency",
    "energy": "energy",
    "power": "average power",
    "edp": "energy-delay product",
    "energy-capped": "energy under a latency cap",
}
"""The objectives in words."""
AXES = {"prompt": "prompt", "output": "decode"}
DARK = (0.25, 0.25, 0.25)
LEVELS = (0, 5, 10, 25, 50, 100, np.inf)
"""Margins [%], each range in a colour of its own."""
MARGINS = ("#FDE725", "#A0DA39", "#4AC16D", "#1FA187", "#365C8D", "#440154")
"""Viridis: it gets darker with the margin, for everybody."""
CURVES = "The lowest device is best. The data have one length on the other axis, or one was asked for."


def region_map(found: Regions, edges: pd.DataFrame) -> Picture:
    """Which device is best, and by how much: a column a history, `edges` as `boundaries` has them."""
    figure, panels = columns(found.grid, 2)
    for k in range(len(found.grid.history)):
        draw(panels[0, k], found.grid, _coloured(found, k))
        _boundary(panels[0, k], edges[edges["history"] == found.grid.history[k]])
        draw(panels[1, k], found.grid, _margins(found, k))
    label(panels, found.grid)
    colours = dict(zip(found.devices, LINES, strict=False))
    title = named(found.aim, simulated=found.simulated)
    legend(figure, "outside upper center", title, [*patches(colours), *_remarks(found, edges)], 4)
    names = [f"{low:g} to {high:g} %" for low, high in pairwise(LEVELS[:-1])] + [f"over {LEVELS[-2]:g} %, or alone"]
    ranges = patches(dict(zip(names, MARGINS, strict=True)))
    legend(figure, "outside lower center", "Below: what the second best costs more", ranges, len(ranges))
    alt = f"The device with the least {NAMES[found.aim.objective]} over prompt and decode length, a panel a history."
    return picture(figure, alt, caption(found, edges))


def cost_curves(found: Regions, costs: Sequence[DeviceCosts]) -> Picture:
    """What each device costs where one length is fixed: a panel a history, on a grey ground where none was measured."""
    grid, judged = found.grid, Costs(costs, found.aim)
    name, fixed = ("prompt", "output") if len(grid.output) == 1 else ("output", "prompt")
    lengths = getattr(grid, name)
    figure = Figure((width_in(len(grid.history)), 3.4), layout="constrained")
    panels = figure.subplots(1, len(grid.history), squeeze=False, sharey=True)
    for k, axes in enumerate(panels[0]):
        each_device = judged.at(grid.history[k], grid.prompt, grid.output)
        for device, each, colour in zip(found.devices, each_device, LINES, strict=False):
            axes.plot(lengths, each, color=colour, label=device)
        seen = (found.label[k] >= NONE).ravel()
        axes.fill_between(lengths, 0, 1, where=~seen, transform=axes.get_xaxis_transform(), **UNSEEN)
        axes.set(xscale="log", yscale="log", xlabel=f"{AXES[name]} [tokens]", title=f"history {grid.history[k]}")
        powers(axes.xaxis)
        axes.yaxis.set_major_formatter("{x:g}")
    panels[0, 0].set_ylabel(f"{NAMES[found.aim.objective]} [{found.aim.unit}]")
    title = f"{named(found.aim, simulated=found.simulated)}, {AXES[fixed]} {getattr(grid, fixed)[0]} tokens"
    legend(figure, "outside upper center", title, panels[0, 0].get_lines(), len(found.devices))
    return picture(figure, f"What each device costs over {AXES[name]} length.", CURVES)


def named(aim: Aim, *, simulated: bool) -> str:
    """The title of a map."""
    said = NAMES[aim.objective] + (f" of {aim.cap_s:g} s" if aim.objective == "energy-capped" else "")
    awake = ", the others' idle power counted" if aim.idle == "awake" and aim.needs_energy else ""
    return f"Least {said}{awake}{', simulated' if simulated else ''}"


def caption(found: Regions, edges: pd.DataFrame) -> str:
    """How to read a map, and how sure it is."""
    said = ["Above the device that is best, below what the second best costs more."]
    said += ["Dots: where it changes, to the token."] if len(edges) else []
    return " ".join([*said, *[gains(found)] * bool(found.band[found.known].any())])


def gains(found: Regions) -> str:
    """What the meters may read differently."""
    told = ", ".join(f"{device} {100 * gain:.2g} %" for device, gain in zip(found.devices, found.gains, strict=True))
    return f"Dark, the gain band: meters that read differently, by up to {told} (95 %), would change it."


def _coloured(found: Regions, k: int) -> Floats:
    """The devices' colours, greyed where the label is not sure, darker in the band."""
    palette = np.array([*map(to_rgb, LINES[: len(found.devices)]), DARK])  # the last is NONE's
    colours = palette[found.label[k]]
    if found.flips is not None:
        colours = greyed(colours, found.flips[k] > 1 - SURE)
    colours[found.band[k]] *= 0.6
    return with_alpha(colours, found.label[k] >= NONE)


def _margins(found: Regions, k: int) -> Floats:
    palette = np.array([*map(to_rgb, MARGINS), DARK])
    level = np.digitize(100 * np.nan_to_num(found.margin[k], posinf=np.inf), LEVELS[1:-1])
    level[found.label[k] == NONE] = len(MARGINS)
    return with_alpha(palette[level], found.label[k] >= NONE)


def _boundary(axes: Axes, edges: pd.DataFrame) -> None:
    axes.plot(edges["prompt"], edges["output"], ".", color="black", markersize=1.8, zorder=2)


def _remarks(found: Regions, edges: pd.DataFrame) -> list[Any]:
    """What is in the map beside the devices' colours."""
    change = Line2D([], [], marker=".", linestyle="", color="black", label="the best changes")
    known: list[Any] = [change] if len(edges) else []
    if found.flips is not None and (found.flips[found.label >= NONE] > 1 - SURE).any():
        known.append(Patch(facecolor=GREY, label=f"greyed: label under {100 * SURE:.0f} % sure"))
    if found.band[found.known].any():
        known.append(Patch(facecolor=(0.5, 0.5, 0.5), label="dark: meters' gains may decide"))
    if (found.label == NONE).any():
        known.append(Patch(facecolor=DARK, label="no device keeps to the cap"))
    if (found.label < NONE).any():
        known.append(Patch(label=OUTSIDE, **UNSEEN))
    return known
