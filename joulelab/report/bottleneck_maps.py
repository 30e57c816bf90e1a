"""Pictures of what devices wait for, over the inference space and over the turns of a session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from joulelab.analysis.space.bottlenecks import KINDS, Bottlenecks
from joulelab.calibration.integrals import Floats
from joulelab.report.figures import WIDTH_IN, Picture, picture
from joulelab.report.moves import named
from joulelab.report.plane import (
    GREY,
    OUTSIDE,
    PANEL_IN,
    UNSEEN,
    columns,
    draw,
    greyed,
    label,
    legend,
    patches,
    with_alpha,
)

WORK = dict(zip(KINDS, ("#E69F00", "#0072B2", "#56B4E9", "#7F7F7F", "#CC79A7"), strict=True))
MOSTLY = 0.5
BOTTLENECK = "What an inference waits for most. Paler: no kind of work takes half of it."
OVER_LINK = f"{BOTTLENECK} The keys and values of the history come from another device first."
SESSION = "Every turn has as many prompt as output tokens, and the cache is kept: only the history grows."


def bottleneck_map(found: Sequence[Bottlenecks]) -> Picture:
    """The kind of work that takes most: a row a device, a column a history."""
    grid, model, link = found[0].grid, found[0].model, found[0].link
    figure, panels = columns(grid, len(found))
    for row, each in zip(panels, found, strict=True):
        for k, axes in enumerate(row):
            draw(axes, grid, _dominant(each, k))
        row[0].annotate(each.device, (-0.42, 0.5), xycoords="axes fraction", rotation=90, va="center", weight="bold")
    label(panels, grid)
    used = np.unique([each.dominant for each in found])
    shown = {f"{kind}: {KINDS[kind]}": colour for i, (kind, colour) in enumerate(WORK.items()) if i in used}
    handles = [*patches(shown), Patch(facecolor=GREY, label="paler: under half of it")]
    if not all(each.seen.all() for each in found):
        handles.append(Patch(label=OUTSIDE, **UNSEEN))
    where = f"; the history comes over a link of {named(link)}" if link else ""
    legend(figure, "outside upper center", f"What takes most of the {model.target}, {model.origin}{where}", handles, 2)
    alt = f"Which kind of work takes most of the {model.target} of an inference{where}."
    return picture(figure, alt, OVER_LINK if link else BOTTLENECK)


def session_shift(sessions: dict[str, pd.DataFrame], target: str, origin: str) -> Picture:
    """What each kind of work costs over the turns of a session, a panel a device; frames as `over_session` has them."""
    figure = Figure((WIDTH_IN, PANEL_IN + 0.4), layout="constrained")
    panels = figure.subplots(1, len(sessions), squeeze=False)[0]
    used = [kind for kind in KINDS if any((turns[kind].abs() > 0).any() for turns in sessions.values())]
    for axes, (device, turns) in zip(panels, sessions.items(), strict=True):
        base = np.zeros(len(turns))
        for kind in used:
            share = 100 * turns[kind].to_numpy() / turns[used].sum(axis=1).to_numpy()
            axes.bar(turns["history"].astype(str), share, bottom=base, color=WORK[kind], width=0.85)
            base += share
        axes.set(title=device, xlabel="history at the turn [tokens]", ylim=(0, 100))
        axes.tick_params(axis="x", labelrotation=45)
    panels[0].set_ylabel(f"share of the turn's {target} [%]")
    title = f"What the turns of a session wait for, {origin}"
    legend(figure, "outside upper center", title, patches({kind: WORK[kind] for kind in used}), len(used))
    return picture(figure, f"How the shares of the {target} shift over the turns of a session.", SESSION)


def _dominant(found: Bottlenecks, k: int) -> Floats:
    palette = np.array([to_rgb(colour) for colour in WORK.values()])
    colours = palette[found.dominant[k]]
    return with_alpha(greyed(colours, found.share[k] < MOSTLY), found.seen[k])
