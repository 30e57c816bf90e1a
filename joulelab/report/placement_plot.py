"""Where turns should run, as a plot."""

from __future__ import annotations

import math
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from joulelab.analysis.placement.study import PLAN, STATIC, Study
from joulelab.report.figures import LINES, MARKERS, WIDTH_IN, Picture, picture, style
from joulelab.report.numbers import percent

CAPTION = (
    "On the left what each policy costs over the plan: a point for the whole workload, a line from the 5th to the 95th "
    "percentile of its sessions. On the right the turns, each where the plan runs it."
)


def plot(study: Study) -> Figure:
    """What the policies cost over the plan, and where the plan runs which turns."""
    with style():
        figure = Figure(figsize=(WIDTH_IN, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _over_plan(left, study)
        _where(right, study)
    return figure


def placement_picture(study: Study) -> Picture:
    best = study.regret(STATIC).total * 100
    alt = f"Costs of the policies over the plan; the best static device, {study.static}, costs {percent(best)} more."
    return picture(plot(study), alt, CAPTION)


def _over_plan(axes: Axes, study: Study) -> None:
    names = [name for name, costs in study.costs.items() if math.isfinite(costs.total)][::-1]
    for place, name in enumerate(names):
        ratio = study.costs[name].sessions / study.costs[PLAN].sessions
        axes.plot(np.quantile(ratio, [0.05, 0.95]), [place, place], color="#7F7F7F", linewidth=2)
        axes.plot(study.costs[name].total / study.costs[PLAN].total, place, "o", color=LINES[0])
    axes.set_yticks(range(len(names)), [f"{name} ({study.static})" if name == STATIC else name for name in names])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel(f"{study.setting.objective} over the plan's")
    axes.set_title("What the policies cost")


def _where(axes: Axes, study: Study) -> None:
    turns = np.array([turn for session in study.sessions.values() for turn in session])
    device = np.concatenate([plan.device for plan in study.plans[PLAN]])
    for number, (name, colour, marker) in enumerate(zip(study.devices, cycle(LINES), cycle(MARKERS), strict=False)):
        prompt, output = turns[device == number].T
        axes.scatter(prompt, output, s=9, c=colour, marker=marker, alpha=0.6, label=f"{name}: {len(prompt)} turns")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("prompt [token]")
    axes.set_ylabel("output [token]")
    axes.set_title("Where the plan runs the turns")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
