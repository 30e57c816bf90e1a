"""Draws the pictures of docs/slow-sensors.md from simulated workloads: `python -m benchmarks.trust.pictures`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.trust.workload import Played, Workload, play
from joulelab.analysis.attribution import attribute_source
from joulelab.analysis.deconvolution import shown, solve
from joulelab.analysis.edges import Edges, Source
from joulelab.calibration.activity import Timeline
from joulelab.calibration.integrals import NS, Floats, integrate
from joulelab.calibration.kernel import Timing, seen, shares
from joulelab.calibration.readings import readings
from joulelab.protocols.patterns import pseudo_random
from joulelab.quantities import Channel, Origin, Scope, SensorModel
from joulelab.recording.samples import schema
from joulelab.report.figures import LINES, PHASES, style, svg
from joulelab.simulation import chance
from joulelab.simulation.profile import Meter
from joulelab.simulation.sensor import Sensor
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH_IN = 8.0
POLL_S, PERIOD_S = 0.019, 0.1
NOISE_W = 3.0
TIMING = Timing(delay_s=0.2, window_s=1.0)
SLOW = Channel(
    "power",
    "W",
    scope=Scope.BOARD,
    origin=Origin.SIMULATED,
    sensor=SensorModel(period_s=PERIOD_S, window_s=TIMING.window_s, delay_s=TIMING.delay_s, noise_u=NOISE_W),
)
CERTIFIED = replace(SLOW, sensor=replace(SLOW.sensor, delay_u_s=1e-3, window_u_s=2e-3))
"""The same sensor, its timing known from a calibration."""
WORK = Workload(inferences=4)
BAR: dict[str, Any] = {"fmt": "o", "capsize": 3}
TRUE, READ, WRONG, FOUND = "#000000", LINES[0], LINES[1], LINES[2]
SEED = 4
RAMP_S = 0.05
BIT_S, SIGNATURE_S, LEAD_S = 0.1373, 12.0, 3.0
COUNTS = (4, 16, 64)
REST_TO_LOAD = (WORK.idle_w, WORK.decode_w)
HELD: dict[str, Any] = {"drawstyle": "steps-post"}
ARROW: dict[str, Any] = {"arrowstyle": "<->", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}


def lie() -> Figure:
    """Why a slow sensor lies about a prefill."""
    played = play(WORK, SLOW, POLL_S, SEED)
    zero = int(played.edges[1, 0])
    found = readings(SLOW, played.interval_ns, played.samples)
    clipped_j = integrate(found.t_ns, found.values, *played.edges[1:2, :2].T)[0]
    drawn_j = played.joules[1, 0]
    figure = Figure((WIDTH_IN, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.5, 2.1), ylim=(0, 700), xlabel="time since the request [s]", ylabel="power [W]")
    _shade(axes, played, zero)
    axes.plot(*_truth(played, zero), color=TRUE, linewidth=1.5, **HELD)
    moved = _since(found.t_ns, zero)
    axes.plot(_since(found.taken_ns, zero), found.values, ".-", color=READ)
    axes.plot(moved, found.values, color=WRONG, linewidth=1.2, linestyle="--")
    inside = np.linspace(0, WORK.prefill_s, 30)
    axes.fill_between(inside, np.interp(inside, moved, found.values), color=WRONG, alpha=0.45, linewidth=0)
    _say(axes, 0.29, 590, "what the device draws (simulated): 600 W, then 330 W", TRUE)
    _say(axes, 1.02, 425, "what the sensor says: the mean\nof the last second, 0.2 s late", READ)
    _say(axes, 0.29, 430, "the same readings,\nmoved back by the lag", WRONG)
    _say(axes, 0.29, 150, f"Under them lie {clipped_j:.0f} J of this prefill.", WRONG)
    _say(axes, 0.29, 100, f"It drew {drawn_j:.0f} J: that is {100 - 100 * clipped_j / drawn_j:.0f} % too little.", TRUE)
    return figure


def known() -> Figure:
    """What is known of a sensor, and how the signature finds it."""
    figure = Figure((WIDTH_IN, 4.4), layout="constrained")
    panels: Any = figure.subplot_mosaic([["step", "signature"], ["step", "misfit"]], width_ratios=(5, 6))
    _step(panels["step"])
    edges_s, t_s, watts = _signature()
    _readings_of_it(panels["signature"], edges_s, t_s, watts)
    _misfits(panels["misfit"], edges_s, t_s, watts)
    return figure


def _step(axes: Axes) -> None:
    """One step of the load, as the sensor shows it: renewed every period, in a ramp as long as its window."""
    t_s = np.arange(-0.55, 2.2, PERIOD_S)
    rise_w = WORK.decode_w - WORK.idle_w
    axes.plot([-0.6, 0, 2], [WORK.idle_w, WORK.decode_w, WORK.decode_w], color=TRUE, linewidth=1.5, **HELD)
    axes.plot(t_s, WORK.idle_w + rise_w * seen(t_s, TIMING), color=READ, linewidth=1.5, **HELD)
    _span(axes, (0, TIMING.lag_s), WORK.idle_w + rise_w / 2, "lag")
    _span(axes, (0, TIMING.delay_s), 70, "delay")
    _span(axes, (TIMING.delay_s, TIMING.delay_s + TIMING.window_s), 40, "averaging window")
    _say(axes, 0.03, 338, "the load", TRUE)
    _say(axes, 0.9, 195, "a reading, renewed\nevery update period", READ)
    axes.set(xlim=(-0.4, 1.6), ylim=(0, 400), xlabel="time since a step of the load [s]", ylabel="power [W]")
    axes.set_title("What is known of a sensor")


def _span(axes: Axes, ends: tuple[float, float], height: float, text: str) -> None:
    axes.annotate("", (ends[0], height), (ends[1], height), arrowprops=ARROW)
    axes.text(sum(ends) / 2, height - 6, text, ha="center", va="top")


def _signature() -> tuple[Floats, Floats, Floats]:
    """A pseudo-random load before the sensor: its edges [s], and times [s] and values [W] of the readings."""
    edges_s = LEAD_S + np.cumsum([0.0, *pseudo_random(BIT_S, SIGNATURE_S)])
    trace = Trace(-10 * SECOND, WORK.idle_w)
    knots = np.rint(np.repeat(edges_s, 2) * SECOND).astype(np.int64) + np.tile([0, 1000], len(edges_s))
    for knot, watts in zip(knots.tolist(), np.resize([*REST_TO_LOAD, *REST_TO_LOAD[::-1]], len(knots)), strict=True):
        trace.append(knot, float(watts))
    trace.append(round((edges_s[-1] + LEAD_S) * SECOND), WORK.idle_w)
    polls = np.arange(0, trace.end_ns, round(POLL_S * SECOND))
    meter = Meter(SLOW, round(POLL_S * SECOND), 0, 0.0, "a picture")
    stamps, watts = Sensor(meter, chance.key(SEED)).read(trace, polls)
    found = readings(SLOW, meter.interval_ns, pa.table([polls, polls, stamps, watts], schema=schema(["power"])))
    return edges_s, np.asarray(found.taken_ns * NS), found.values


def _readings_of_it(axes: Axes, edges_s: Floats, t_s: Floats, watts: Floats) -> None:
    axes.plot(edges_s, np.resize(REST_TO_LOAD[::-1], len(edges_s)), color=TRUE, linewidth=0.8, **HELD)
    axes.plot(t_s, watts, color=READ)
    axes.set(xlim=(LEAD_S - 0.5, LEAD_S + SIGNATURE_S), ylim=(0, 400), xlabel="time [s]", ylabel="power [W]")
    axes.set_title("Its answer to a signature (simulated)")


def _misfits(axes: Axes, edges_s: Floats, t_s: Floats, watts: Floats) -> None:
    """How far the readings lie from what a sensor of some lag and window would read."""
    lags_s = np.linspace(0.5, 0.9, 81)
    for window_s, colour, high in ((0.8, FOUND, 0.35), (1.2, WRONG, -0.9), (TIMING.window_s, READ, 0.0)):
        found = np.array([_misfit(edges_s, t_s, watts, lag_s, window_s) for lag_s in lags_s])
        axes.plot(lags_s, found, color=colour)
        best = int(found.argmin())
        if window_s != TIMING.window_s:
            axes.text(lags_s[best], found[best] + high, f"window {window_s:g} s", color=colour, ha="center")
    _say(axes, 0.718, 0.5, f"window {window_s:g} s: best at {lags_s[best]:.2f} s", READ)
    axes.set(xlim=(0.5, 0.9), ylim=(0, None), xlabel="lag tried [s]", ylabel="misfit\n[noise of a reading]")


def _misfit(edges_s: Floats, t_s: Floats, watts: Floats, lag_s: float, window_s: float) -> float:
    """The root mean square of what the best two powers, of load and rest, leave over [noise of a reading]."""
    share = shares(t_s, edges_s, Timing(lag_s - window_s / 2, window_s)).toarray()
    parts = np.stack([share[:, 0::2].sum(axis=1), share[:, 1::2].sum(axis=1)], axis=1)
    left = watts - parts @ np.linalg.lstsq(parts, watts)[0]
    return float(np.sqrt(np.mean(left**2)) / NOISE_W)


def many() -> Figure:
    """How the readings of many inferences give the truth back."""
    figure = Figure((WIDTH_IN, 5.0), layout="constrained")
    panels: Any = figure.subplot_mosaic([["power"], ["error"]], height_ratios=(3, 2))
    _recovered(panels["power"])
    _errors(panels["error"])
    return figure


def _recovered(axes: Axes) -> None:
    """A few of 32 inferences: the truth, the readings, and the power that explains them all."""
    played = play(replace(WORK, inferences=32), SLOW, POLL_S, SEED)
    source, nothing = Source("slow.power", SLOW, played.interval_ns, played.samples), np.empty((0, 2), np.int64)
    found = shown(solve(SLOW, source.readings(), _timeline(played), nothing, certified=False))
    zero = int(played.edges[8, 0])
    seen_s, steps_s = _since(found.t_ns, zero), _since(found.step_t_ns, zero)
    near, inside = np.abs(seen_s - 3) < 4, np.abs(steps_s - 3) < 4
    axes.set(xlim=(-0.55, 4.4), ylim=(0, 700), xlabel="time [s]", ylabel="power [W]")
    _shade(axes, played, zero)
    axes.stairs(found.step_w[inside[:-1]][:-1], steps_s[inside], baseline=None, color=FOUND, linewidth=1.8)
    axes.plot(*_truth(played, zero), color=TRUE, linewidth=1, linestyle=":", **HELD)
    axes.plot(seen_s[near], found.read_w[near], ".", color=READ, markersize=4)
    axes.plot(seen_s[near], found.fitted_w[near], color=READ, linewidth=0.8)
    _say(axes, 0.3, 530, "power that explains all 32 of them", FOUND)
    _say(axes, 0.3, 475, "dotted: what was drawn (simulated)", TRUE)
    _say(axes, 0.7, 395, "readings, and what the fit expects", READ)


def _errors(axes: Axes) -> None:
    """The error of the mean prefill energy by the number of inferences, with what noise makes of it in 95 %."""
    for place, count in enumerate(COUNTS):
        played = play(replace(WORK, inferences=count), SLOW, POLL_S, SEED)
        energy_j, budget = _mean_prefill(played, SLOW, certified=False)
        true_j = played.joules[:, 0].mean()
        axes.errorbar(place, 100 * (energy_j / true_j - 1), 196 * budget["noise"] / true_j, **BAR, color=FOUND)
    axes.axhline(0, color=TRUE, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(COUNTS)), [str(count) for count in COUNTS])
    axes.set(xlabel="inferences", ylabel="error of the\nmean prefill [%]")
    found = readings(SLOW, played.interval_ns, played.samples)
    clipped = integrate(found.t_ns, found.values, *played.edges[:, :2].T).mean() / true_j
    axes.set_title(
        f"The mean prefill, with intervals for noise alone; readings summed up err by {100 * (clipped - 1):.0f} %"
    )


def unknown() -> Figure:
    """What no number of inferences tells: whether the sensor is late, or the power."""
    figure = Figure((WIDTH_IN, 4.0), layout="constrained")
    panels: Any = figure.subplot_mosaic([["power", "found"], ["readings", "found"]], width_ratios=(6, 5))
    _stories(panels["power"], panels["readings"])
    _intervals(panels["found"])
    return figure


def _stories(power: Axes, read: Axes) -> None:
    """The power steps, or it takes 50 ms to rise before a sensor that is 25 ms quicker: they read nearly alike."""
    quick = Timing(TIMING.delay_s - RAMP_S / 2, TIMING.window_s, ramp_s=RAMP_S)
    edges_s, watts = np.array([0, WORK.prefill_s]), np.array([WORK.idle_w, WORK.prefill_w, WORK.decode_w])
    t_s = np.linspace(-0.1, 0.4, 501)
    for timing, colour in ((TIMING, TRUE), (quick, WRONG)):
        power.plot(t_s, shares(t_s, edges_s, Timing(ramp_s=timing.ramp_s)) @ watts, color=colour)
    t_s = np.linspace(-0.1, 1.6, 341)
    read.axhspan(-NOISE_W, NOISE_W, color="#BBBBBB", alpha=0.5, linewidth=0)
    read.plot(t_s, (shares(t_s, edges_s, quick) - shares(t_s, edges_s, TIMING)) @ watts, color=READ)
    _say(power, -0.09, 650, "a device, and a sensor that is 25 ms slower", TRUE)
    _say(power, 0.06, 370, "another, whose\npower takes 50 ms", WRONG)
    _say(read, -0.08, 3.6, "by how much their readings differ; grey: noise", READ)
    power.set(xlim=(-0.1, 0.4), ylim=(0, 760), xlabel="time since the request [s]", ylabel="power [W]")
    read.set(xlim=(-0.1, 1.6), ylim=(-4.5, 5.5), xlabel="time since the request [s]", ylabel="difference [W]")


def _timeline(played: Played) -> Timeline:
    """Everything that drew power, by phase."""
    phases = (("prefill",), ("decode",))
    return Timeline.of(
        [(*edges, phase) for row in played.edges.tolist() for edges, phase in zip(pairwise(row), phases, strict=True)]
    )


def _mean_prefill(played: Played, channel: Channel, *, certified: bool) -> tuple[float, dict[str, float]]:
    """The mean energy of the deconvolved prefills, and the terms of its budget [J]."""
    starts, stops = played.edges[:, :2].T
    edges = Edges(starts, stops, np.zeros(len(starts)), np.arange(len(starts)), _timeline(played))
    source = Source("slow.power", channel, played.interval_ns, played.samples, certified=certified)
    found = attribute_source(source, edges, "deconvolve")
    assert found.shared is not None
    terms = {name: abs(float(load.mean())) for name, load in found.budget.items()}
    return float(found.energy_j.mean()), terms | {"noise": float(np.linalg.norm(found.shared.mean(axis=0)))}


def _intervals(axes: Axes) -> None:
    """The mean prefill of the device whose power takes its time, as it is found, with intervals for 95 %."""
    played = play(replace(WORK, inferences=32, ramp_s=RAMP_S), SLOW, POLL_S, SEED)
    true_j = played.joules[:, 0].mean()
    for place, certified in enumerate((False, True)):
        energy_j, budget = _mean_prefill(played, CERTIFIED if certified else SLOW, certified=certified)
        axes.errorbar(place, energy_j, 1.96 * float(np.linalg.norm([*budget.values()])), **BAR, color=FOUND)
        largest = sorted(budget, key=lambda term: -budget[term])[:2]
        said = "\n".join(f"{term} {budget[term]:.1f} J" for term in largest)
        axes.annotate(said, (place, energy_j), (8, 12), textcoords="offset points")
    axes.axhline(true_j, color=WRONG, linestyle=":")
    _say(axes, -0.75, true_j + 0.3, f"drawn: {true_j:.0f} J", WRONG)
    axes.set_xticks((0, 1), ("no certificate", "certificate against\na fast meter"))
    axes.set(xlim=(-0.8, 1.6), ylabel="mean prefill of the second device [J]")
    axes.set_title("What is found, in 95 % intervals")


def _truth(played: Played, zero: int) -> tuple[Floats, Floats]:
    """The true power as steps: from which time on [s], and how much [W]."""
    t_s = _since(played.edges.ravel(), zero)
    watts = [WORK.prefill_w, WORK.decode_w, WORK.idle_w] * len(played.edges)
    return np.concatenate([[t_s[0] - 9], t_s]), np.array([WORK.idle_w, *watts])


def _since(t_ns: Any, zero: int) -> Floats:
    return np.asarray((t_ns - zero) * NS)


def _shade(axes: Axes, played: Played, zero: int) -> None:
    """Shade and name the phases in view."""
    left, right = axes.get_xlim()
    for start, first, stop in _since(played.edges, zero):
        for name, begin, end in (("prefill", start, first), ("decode", first, stop)):
            if begin < right and end > left:
                axes.axvspan(begin, end, color=PHASES[name][0], alpha=0.25, linewidth=0)
                middle = (max(begin, left) + min(end, right)) / 2
                axes.text(middle, 0.98, name, ha="center", va="top", transform=axes.get_xaxis_transform())


def _say(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.text(x, y, text, color=colour, va="bottom")


PICTURES: dict[str, Callable[[], Figure]] = {"lie": lie, "known": known, "many": many, "unknown": unknown}


def draw(folder: Path) -> list[Path]:
    """Draw all pictures into `folder`; the same pictures give the same files."""
    paths = []
    with style(), rc_context({"axes.titleweight": "normal"}):
        for name, figure in PICTURES.items():
            paths.append(folder / f"slow-{name}.svg")
            paths[-1].write_text(svg(figure()), encoding="utf-8")
    return paths


if __name__ == "__main__":
    for drawn in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(drawn)
