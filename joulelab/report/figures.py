"""What all plots share: colours that everybody can tell apart, one style, and the way into the page."""

from __future__ import annotations

import base64
import io
import math
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PHASES = {"prefill": ("#E69F00", "o"), "decode": ("#56B4E9", "s"), "total": ("#000000", "^")}
"""A colour and a marker for each phase."""
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#7F7F7F")
"""Colours of Okabe and Ito, "Color Universal Design" (2008), and a grey."""
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH_IN = 11.5
PRECISE = re.compile(r"([1-9]\d*\.\d\d)\d+")

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a name may have dollar signs in it
    "svg.hashsalt": "joulelab",  # the same data give the same file
}


def style() -> AbstractContextManager[None]:
    """In it, plots are made in the style of the report."""
    return mpl.rc_context(_STYLE)


@dataclass(frozen=True)
class Picture:
    """A plot as the page shows it: `uri` holds the whole picture, `alt` says in words what it shows."""

    uri: str
    alt: str
    caption: str


def svg(figure: Figure) -> str:
    """The figure, drawn to a hundredth of a point: the rest would be bytes, and what machines differ in."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return PRECISE.sub(r"\1", file.getvalue())


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    return Picture("data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode(), alt, caption)


def round_numbers(low: float, high: float) -> list[float]:
    """The roundest numbers of which at least three lie between the ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    for marks in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [mark * 10.0**power for power in powers for mark in marks if low <= mark * 10.0**power <= high]
        if len(found) > 2:
            return found
    return [float(x) for x in MaxNLocator(4).tick_values(low, high) if low <= x <= high]
