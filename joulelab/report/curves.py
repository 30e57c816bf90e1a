"""Models as curves: what they predict over prompt and output length, and the measured means on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from joulelab.analysis.modelling.forms import UNITS
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.validation import Verdict
from joulelab.errors import DataInvalid
from joulelab.report.figures import LINES, MARKERS, WIDTH_IN, Picture, picture, round_numbers
from joulelab.report.plane import powers
from joulelab.report.words import target

PANEL_IN = 3.2
STEPS = 300
OTHER = {"prompt": "output", "output": "prompt"}
CAPTION = (
    "Lines: predictions; total is prefill and decode together. Bands: in 95 % of cases a configuration's mean lies in "
    "them. Points: measured means, hollow where they do not count."
)


def curves(models: Sequence[Model], verdicts: Sequence[Verdict]) -> Picture:
    """A row a model of one device; the left over the prompt, the right over the output, each where the other has the
    length that most was measured at. Of the total, or of the last phase that there is. DataInvalid where there is none.
    """
    known = {target(v): v for v in verdicts if len(v.points)}
    shown = [(model, known[target(model)]) for model in models if target(model) in known]
    if not shown:
        raise DataInvalid("nothing could be predicted; the verdicts say why")
    figure = Figure((WIDTH_IN, PANEL_IN * len(shown) + 0.4), layout="constrained")
    histories = sorted({history for _, v in shown for history in v.points["history"]})
    looks = dict(zip(histories, zip(cycle(LINES), cycle(MARKERS), strict=False), strict=False))
    for row, (model, verdict) in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        for axes, along in zip(row, OTHER, strict=True):
            _cut(axes, model, verdict, along, looks)
    lines = [Line2D([], [], color=c, marker=m, markersize=4, label=f"history {h:g}") for h, (c, m) in looks.items()]
    band = Patch(color="#7F7F7F", alpha=0.3, linewidth=0, label="95 % prediction band")
    figure.legend(handles=[*lines, band], loc="outside lower center", ncols=5)
    said = "; ".join(target(model) for model, _ in shown)
    return picture(figure, f"Predicted and measured {said} over prompt and output length.", CAPTION)


def _cut(axes: Axes, model: Model, verdict: Verdict, along: str, looks: dict[float, tuple[str, str]]) -> None:
    """Costs along one length, where the other has the one length that most was measured at."""
    points, other = verdict.points, OTHER[along]
    fixed = _most(points[other])
    cut = points[points[other] == fixed]
    axes.set_visible(cut[along].nunique() > 1)
    histories: Any = cut.groupby("history")
    for history, its in histories:
        _curve(axes, model, verdict.phase, its, along, looks[history])
    title = f"{verdict.phase} {model.target}, {model.origin}\n{model.channel or ''}"
    axes.set_title(title.strip())
    label(axes, f"{along} [tokens], {other} {fixed:g}", f"{model.target} [{UNITS[model.target]}]")


def label(axes: Axes, lengths: str, costs: str) -> None:
    """Make both axes logarithmic and say what they are of."""
    axes.set(xscale="log", yscale="log", xlabel=lengths, ylabel=costs)
    powers(axes.xaxis)
    axes.yaxis.set_major_locator(FixedLocator(round_numbers(*axes.get_ylim())))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _curve(axes: Axes, model: Model, phase: str, its: pd.DataFrame, along: str, look: tuple[str, str]) -> None:
    colour, marker = look
    fixed: Any = its[["history", "prompt", "output"]].iloc[0].to_dict()
    predicted(axes, model, phase, fixed, along, (its[along].min(), its[along].max()), colour)
    hollow = (its["short"] | its["outside"]).astype(bool)
    for points, face in ((its[~hollow], colour), (its[hollow], "none")):
        axes.scatter(points[along], points["observed"], s=16, marker=marker, edgecolors=colour, facecolors=face)


def predicted(
    axes: Axes, model: Model, phase: str, fixed: Mapping[str, float], along: str, ends: tuple[float, float], colour: str
) -> None:
    """Draw what a model predicts, with its band, `along` one length between `ends` where the others are `fixed`."""
    tokens = np.unique(np.geomspace(*ends, STEPS).round())
    asked: Any = {**fixed, along: tokens, "phase": phase}
    cost, half = model.predict(**asked), model.half_width(**asked)
    axes.plot(tokens, cost, color=colour, linewidth=1)
    axes.fill_between(tokens, cost - half, cost + half, color=colour, alpha=0.2, linewidth=0)


def _most(lengths: pd.Series[Any]) -> float:
    """The length that most points have; of several the middle one."""
    counts = lengths.value_counts()
    most = sorted(counts.index[counts == counts.max()])
    return float(most[len(most) // 2])
