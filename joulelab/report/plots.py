"""Held-out predictions beside what was measured, and their errors over what they may depend on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from joulelab.analysis.modelling.cases import KEYS
from joulelab.analysis.modelling.crossval import counting
from joulelab.analysis.modelling.forms import UNITS
from joulelab.analysis.modelling.validation import Verdict
from joulelab.errors import DataInvalid
from joulelab.report.figures import LINES, MARKERS, PHASES, WIDTH_IN, Picture, picture, round_numbers
from joulelab.report.numbers import percent
from joulelab.report.words import target

PANEL_IN = 3.5
OBSERVED = {"time": "duration_s", "energy": "energy_j"}
LIMIT: dict[str, Any] = {"color": "#BBBBBB", "alpha": 0.5, "linewidth": 0, "label": "within the limit"}
UNCOUNTED = ", short or outside the valid range: not counted"
AGREEMENT = (
    "Each point is a configuration, the mean of its repeats, predicted by a model that has not seen it. "
    "On the line the prediction is exact."
)
RESIDUALS = "The same predictions as errors; above 0 the model predicts too much."
IN_ORDER = " On the right each point is one inference, in the order that they ran: a slope there is drift."


def agreement(verdicts: Sequence[Verdict]) -> Picture:
    """Predicted against measured, log-log: a row a target and channel, a panel a phase. DataInvalid without points."""
    rows = _by_target(verdicts)
    if max(map(len, rows)) == 1:
        rows = [[verdict for row in rows for verdict in row]]
    figure, panels = _grid(len(rows), max(map(len, rows)))
    histories = sorted({history for row in rows for verdict in row for history in verdict.points["history"]})
    looks = dict(zip(histories, zip(cycle(LINES), cycle(MARKERS), strict=False), strict=False))
    for row, axes in zip(rows, panels, strict=True):
        for verdict, panel in zip(row, axes, strict=False):
            _scatter(panel, verdict, looks)
            _one_to_one(panel, verdict)
    _legend(figure, panels)
    said = "; ".join(f"{v.phase} {target(v)}, MAPE {percent(v.mape_percent)}" for row in rows for v in row)
    return picture(figure, f"Predicted against measured on logarithmic axes, beside the 1:1 line: {said}.", AGREEMENT)


def residuals(verdicts: Sequence[Verdict], table: pd.DataFrame | None) -> Picture:
    """Errors in % over prompt and output length, and over the inferences of `table` in the order that they ran.

    A row a target and channel. DataInvalid without points.
    """
    rows = _by_target(verdicts)
    figure, panels = _grid(len(rows), 2 if table is None else 3)
    for row, axes in zip(rows, panels, strict=True):
        for verdict in row:
            _over_lengths(axes, verdict)
            if table is not None:
                _over_inferences(axes[2], verdict, table)
        for panel in axes:
            panel.axhspan(-row[0].limit_percent, row[0].limit_percent, **LIMIT)
            panel.axhline(0, color="black", linewidth=0.8)
            panel.set_title(_title(row[0], f"error of {row[0].target}"))
        axes[0].set_ylabel("predicted above measured [%]")
    _legend(figure, panels)
    over, more = (
        ("and output length", "") if table is None else (", output length and order of the inferences", IN_ORDER)
    )
    return picture(figure, f"Errors of the predictions in percent over prompt {over}.", RESIDUALS + more)


def _by_target(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """The verdicts that have points, in rows of one target and channel."""
    rows = [list(row) for _, row in groupby((v for v in verdicts if len(v.points)), target)]
    if not rows:
        raise DataInvalid("nothing could be predicted; the verdicts say why")
    return rows


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure((WIDTH_IN * max(columns, 2) / 3, PANEL_IN * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _scatter(axes: Axes, verdict: Verdict, looks: dict[float, tuple[str, str]]) -> None:
    apart = (verdict.points["short"] | verdict.points["outside"]).astype(bool)
    groups: Any = verdict.points.groupby([verdict.points["history"], apart])
    for (history, uncounted), points in groups:
        colour, marker = looks[history]
        axes.scatter(
            points["observed"],
            points["predicted"],
            s=16,
            marker=marker,
            edgecolors=colour,
            facecolors="none" if uncounted else colour,
            alpha=0.75,
            label=f"history {history:g}{UNCOUNTED if uncounted else ''}",
        )


def _one_to_one(axes: Axes, verdict: Verdict) -> None:
    both = verdict.points[["observed", "predicted"]].to_numpy(float)
    ends = np.array([both[both > 0].min() / 1.3, both.max() * 1.3])
    limit = verdict.limit_percent / 100
    axes.fill_between(ends, ends * (1 - limit), ends * (1 + limit), **LIMIT)
    axes.plot(ends, ends, color="black", linewidth=0.8, label="1:1")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis, word in ((axes.xaxis, "measured"), (axes.yaxis, "predicted")):
        axis.set_major_locator(FixedLocator(round_numbers(*ends)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
        axis.set_label_text(f"{word} {verdict.target} [{UNITS[verdict.target]}]")
    axes.set_title(_title(verdict, f"{verdict.phase} {verdict.target}"))


def _over_lengths(axes: Sequence[Axes], verdict: Verdict) -> None:
    points = counting(verdict.points)
    error = (points["predicted"] / points["observed"] - 1) * 100
    colour, marker = PHASES[verdict.phase]
    for panel, name in zip(axes, ("prompt", "output"), strict=False):
        panel.plot(points[name], error, marker, color=colour, markersize=4, alpha=0.7, label=verdict.phase)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel(f"{name} length [tokens]")


def _over_inferences(axes: Axes, verdict: Verdict, table: pd.DataFrame) -> None:
    colour, marker = PHASES[verdict.phase]
    axes.plot(*in_order(verdict, table), marker, color=colour, markersize=2.5, alpha=0.7)
    axes.set_xlabel("inference, in the order that they ran")


def in_order(verdict: Verdict, table: pd.DataFrame) -> tuple[Any, Any]:
    """The number of each inference of one run's phases table, and the error in % of its held-out prediction."""
    keys = KEYS[verdict.phase]
    points = counting(verdict.points)
    rows = table[table["phase"] == verdict.phase]
    rows = rows[rows["channel"] == verdict.channel] if verdict.channel else rows.drop_duplicates("inference")
    found = rows.merge(points[[*keys, "predicted"]], on=keys)
    return found["inference"], (found["predicted"] / found[OBSERVED[verdict.target]] - 1) * 100


def _title(verdict: Verdict, what: str) -> str:
    return f"{what}, {verdict.origin}" + (f"\n{verdict.channel}" if verdict.channel else "")


def _legend(figure: Figure, panels: Any) -> None:
    found: dict[str, Any] = {}
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
        found |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5))
