"""A slow channel taken apart: the power that explains its readings, and what that leaves over of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from joulelab.analysis.dataset import Phases
from joulelab.analysis.deconvolution import Deconvolved
from joulelab.calibration.integrals import NS, Floats
from joulelab.recording import RunDir
from joulelab.report.figures import LINES, WIDTH_IN, Picture, picture
from joulelab.report.numbers import expanded, quantity
from joulelab.report.trace import Window, shade, stretch

SHOWN = 1000
"""The most residuals in one plot: more are a cloud, and make the page slow."""
BAND = 2.0
"""Standard deviations that hold 95 % of pure noise."""
HEADROOM = 1.2
"""Above the highest power, for the legend."""
READ, FOUND = LINES[0], "#000000"
CAPTION = (
    "On top, a stretch of the run: dots are readings, each at the middle of the time that it averages, so that they "
    "smear short phases; steps are the power that explains the readings of the whole run best. Below, the whole run: "
    "what the readings have left over, read minus fitted. Pure noise shows no pattern, and at least 95 % of it lies in "
    "the band, more where the fit lets single inferences differ"
)


def slow_channels(phases: Phases) -> list[str]:
    """The channels that have deconvolved energies."""
    table = phases.table
    return [str(name) for name in table.loc[table["method"] == "deconvolve", "channel"].unique()]


def unfolded(run: RunDir, name: str, found: Deconvolved) -> Picture:
    """Readings and deconvolved power of channel `name`, and the residuals in units of the readings' noise."""
    left = (found.read_w - found.fitted_w) / found.noise_u_w
    within = f"{100 * np.mean(np.abs(left) <= BAND):.0f} %"
    every = -(-len(left) // SHOWN)
    alt = f"Readings of {name} with the power deconvolved from them; {within} of the residuals lie in the band."
    drawn = f": here {within}." + (f" One residual in {every} is drawn." if every > 1 else "")
    return picture(_figure(run, name, found, left, slice(None, None, every)), alt, CAPTION + drawn + _timing(found))


def _timing(found: Deconvolved) -> str:
    timing = found.timing
    lag = expanded(timing.lag_s - timing.ramp_s / 2, found.lag_u_s, "s")
    window = expanded(timing.window_s, found.window_u_s, "s")
    ramp = f", and a ramp of the power of {quantity(timing.ramp_s, 's')}" if timing.ramp_s else ""
    return f" Fitted with the power: a lag of {lag}, an averaging window of {window} (standard uncertainties){ramp}."


def _figure(run: RunDir, name: str, found: Deconvolved, left: Floats, shown: slice) -> Figure:
    inferences = run.records("inference")
    window = Window(run.journal[0]["t"], *stretch(inferences))
    figure = Figure((WIDTH_IN, 6), layout="constrained")
    panels: Any = figure.subplot_mosaic([["power", "power"], ["time", "phase"]], height_ratios=(3, 2))
    _power(panels["power"], run, name, found, window)
    _residuals(panels["time"], window.seconds(found.t_ns)[shown], left[shown], "time since the start of the run [s]")
    age_s, inside = _since_start(found, inferences)
    _residuals(panels["phase"], age_s[inside][shown], left[inside][shown], "time since the inference began [s]")
    panels["phase"].set_ylabel("")
    return figure


def _power(axes: Axes, run: RunDir, name: str, found: Deconvolved, window: Window) -> None:
    near = window.part(found.t_ns)
    read = found.read_w[near]
    axes.plot(window.seconds(found.t_ns[near]), read, ".-", color=READ, linewidth=0.8, markersize=4, label="read")
    near = window.part(found.step_t_ns)
    edges = window.seconds(found.step_t_ns[near])
    power = found.step_w[near.start : near.start + len(edges) - 1]
    axes.stairs(power, edges, baseline=None, color=FOUND, linewidth=1.3, zorder=2.5, label="deconvolved")
    shade(axes, run, window)
    axes.set(xlabel="time since the start of the run [s]", ylabel="power [W]")
    axes.set_xlim(window.seconds(window.start), window.seconds(window.stop))
    axes.set_ylim(0, HEADROOM * max([*read, *power]))
    axes.set_title(f"{name}, {run.channels[name].origin}", pad=16)
    axes.legend(loc="upper right", ncols=2)


def _since_start(found: Deconvolved, inferences: Sequence[dict[str, Any]]) -> tuple[Floats, Any]:
    """How long after the latest inference began each reading has its middle [s], and which may see something of it."""
    starts = np.array([inference["phases"][0]["start"] for inference in inferences])
    longest = max(inference["phases"][-1]["stop"] - inference["phases"][0]["start"] for inference in inferences)
    latest = np.searchsorted(starts, found.t_ns, "right") - 1
    age_s = (found.t_ns - starts[np.maximum(latest, 0)]) * NS
    return age_s, (latest >= 0) & (age_s <= longest * NS + found.timing.reach_s)


def _residuals(axes: Axes, x: Floats, left: Floats, label: str) -> None:
    axes.axhspan(-BAND, BAND, color="#BBBBBB", alpha=0.5, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.plot(x, left, ".", color=READ, markersize=3, alpha=0.7)
    end = max(BAND + 1, *np.abs(axes.get_ylim()))
    axes.set(xlabel=label, ylabel="read minus fitted\n[noise of a reading]", ylim=(-end, end))
