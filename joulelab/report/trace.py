"""The power trace: a telling stretch of a run, every power channel, phases shaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from joulelab.calibration.integrals import Ints
from joulelab.errors import DataInvalid
from joulelab.quantities import Kind
from joulelab.recording import RunDir
from joulelab.report.figures import LINES, PHASES, WIDTH_IN, Picture, picture
from joulelab.report.power import read_power
from joulelab.report.words import tokens
from joulelab.timebase import SECOND

STRETCH_NS = 15 * SECOND
FEW_UPDATES = 100
"""So many update points in one stretch can be told apart."""
SHADES: dict[str, dict[str, Any]] = {
    name: {"color": PHASES[name][0], "alpha": 0.38, "linewidth": 0} for name in ("prefill", "decode")
}
LETTER = 0.0062
"""The width of a letter as a share of the plot's: an inference is named where its name fits."""
CAPTION = (
    "Readings, over the stretch of the run in which most phases can be told apart, each at the time that it describes "
    "and joined by straight lines: what is integrated, unless the channel is deconvolved. Points are the updates of a "
    "slow sensor. Of an energy counter, the mean power between its updates, several together where they are close. "
    "Unshaded: idle. Hatched: no readings. On top: (history +) prompt → output tokens."
)


@dataclass(frozen=True)
class Window:
    """The stretch from `start` to `stop` [ns] of a run that began at `zero` [ns]."""

    zero: int
    start: int
    stop: int

    def seconds(self, t: Any) -> Any:
        return (t - self.zero) / SECOND

    def part(self, t_ns: Ints) -> slice:
        """Which of some times, in order, to draw: those in the window, and one on either side."""
        first, last = np.searchsorted(t_ns, (self.start, self.stop))
        return slice(max(int(first) - 1, 0), int(last) + 1)

    def meets(self, start: int, stop: int) -> bool:
        return start < self.stop and stop > self.start


def trace(run: RunDir | None) -> Picture:
    """The plot; DataInvalid, with the reason in words, where there is nothing to draw."""
    if run is None:
        raise DataInvalid("a dataset has phases and their energies, but no readings")
    if not run.manifest.power:
        raise DataInvalid("this run has no power channel: inferences were timed, but no power was recorded")
    if not run.records("inference"):
        raise DataInvalid("it holds no inference")
    window = Window(run.journal[0]["t"], *stretch(run.records("inference")))
    seconds = (window.stop - window.start) / SECOND
    alt = f"Power in watts over {seconds:.0f} seconds of the run on {run.manifest.device}, prefill and decode shaded."
    return picture(_figure(run, window), alt, CAPTION)


def _figure(run: RunDir, window: Window) -> Figure:
    figure = Figure((WIDTH_IN, 4.2), layout="constrained")
    axes = figure.add_subplot()
    _draw_power(axes, run, window)
    shade(axes, run, window)
    axes.set(xlabel="time since the start of the run [s]", ylabel="power [W]")
    axes.set_xlim(window.seconds(window.start), window.seconds(window.stop))
    axes.set_ylim(bottom=0)
    axes.set_title(f"Power of {run.manifest.device}", pad=16)
    shades = [Patch(label=name, **shade) for name, shade in SHADES.items()]
    figure.legend(handles=[*shades, *axes.lines], loc="outside lower center", ncols=3)
    return figure


def stretch(inferences: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """The window [ns] in which most phases can be told apart: 15 s, or more where three inferences take longer."""
    edges = np.array([_edges(inference) for inference in inferences])
    few = min(3, len(edges))
    width = max(STRETCH_NS, int(np.min(edges[few - 1 :, 1] - edges[: len(edges) - few + 1, 0])))
    phases = [p for i in inferences if not i["warmup"] for p in i["phases"] if p["stop"] - p["start"] >= width // 100]

    def told_apart(start: int) -> tuple[int, int]:
        seen = [phase["name"] for phase in phases if start <= phase["start"] and phase["stop"] <= start + width]
        return min(seen.count("prefill"), seen.count("decode")), len(seen)

    best = max(edges[:, 0].tolist(), key=told_apart)
    return best - width // 40, best + width + width // 40


def _edges(inference: dict[str, Any]) -> tuple[int, int]:
    return inference["phases"][0]["start"], inference["phases"][-1]["stop"]


def _draw_power(axes: Axes, run: RunDir, window: Window) -> None:
    for name, colour in zip(run.manifest.power, cycle(LINES), strict=False):
        channel = run.channels[name]
        line = read_power(run, name, window.start, window.stop)
        counted = ", mean between updates" if channel.kind is Kind.COUNTER else ""
        axes.plot(
            window.seconds(line.t_ns),
            line.watts,
            color=colour,
            linewidth=1.1,
            drawstyle="steps-post" if line.held else "default",
            marker="." if len(line.watts) <= FEW_UPDATES else "",
            label=f"{name} [W], {channel.scope}, {channel.origin}{counted}",
        )


def shade(axes: Axes, run: RunDir, window: Window) -> None:
    for inference in run.records("inference"):
        if window.meets(*_edges(inference)):
            for phase in inference["phases"]:
                edges = window.seconds(phase["start"]), window.seconds(phase["stop"])
                axes.axvspan(*edges, **SHADES[phase["name"]])
            _name(axes, inference, window)
    for gap in run.records("gap"):
        if window.meets(gap["start"], gap["stop"]):
            edges = window.seconds(gap["start"]), window.seconds(gap["stop"])
            axes.axvspan(*edges, fill=False, hatch="////", edgecolor="#999999")


def _name(axes: Axes, inference: dict[str, Any], window: Window) -> None:
    start, stop = _edges(inference)
    middle = (start + stop) / 2
    text = tokens(inference["history"], inference["prompt"], inference["output"])
    if window.start < middle < window.stop and stop - start > LETTER * len(text) * (window.stop - window.start):
        above = axes.get_xaxis_transform()
        axes.text(window.seconds(middle), 1.01, text, transform=above, ha="center", va="bottom", fontsize=7)
