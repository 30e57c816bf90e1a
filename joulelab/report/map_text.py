"""Maps in words and figures: what share of the plane each device wins, where boundaries run, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from joulelab.analysis.space.costs import DeviceCosts
from joulelab.analysis.space.regions import NONE, SURE, UNSEEN, Regions
from joulelab.report import bottleneck_text
from joulelab.report.bottleneck_text import Waits
from joulelab.report.maps import gains, named
from joulelab.report.numbers import percent

PLACES = 5
"""Points of a boundary that are printed."""
LEGEND = (
    "Shares are of the plane on logarithmic axes; not seen: outside what the models were fitted to; no device: none "
    "keeps to the cap. Of the points with a label, margin: the median of what the second best costs more; sure: where "
    "at most one in ten of the models that the data leave possible has another label."
)


def rows(found: Regions, edges: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a history: shares of the plane, both axes logarithmic, and what is said of the part that has a label."""
    return [_row(found, edges[edges["history"] == history], k) for k, history in enumerate(found.grid.history)]


def _row(found: Regions, edges: pd.DataFrame, k: int) -> dict[str, Any]:
    share, label, known = found.grid.share, found.label[k], found.known[k]
    labelled = share(known)
    margin = np.nanmedian(found.margin[k][known]) if labelled else np.nan
    return {
        "objective": found.aim.objective,
        "unit": found.aim.unit,
        "idle": found.aim.idle,
        "cap_s": found.aim.cap_s if found.aim.objective == "energy-capped" else None,
        "simulated": found.simulated,
        "history": int(found.grid.history[k]),
        "shares": {device: share(label == number) for number, device in enumerate(found.devices)},
        "no_device_share": share(label == NONE),
        "unseen_share": share(label == UNSEEN),
        "median_margin": float(margin) if np.isfinite(margin) else None,
        "sure_share": _of(share(known & (found.flips[k] <= 1 - SURE)), labelled) if found.flips is not None else None,
        "gain_band_share": _of(share(known & found.band[k]), labelled),
        "boundaries": [*_boundaries(edges)],
    }


def _of(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _boundaries(edges: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Each boundary by some of its points, as it is crossed along the decode; along the prompt where it never is."""
    pairs = [frozenset(pair) for pair in zip(edges["below"], edges["above"], strict=True)]
    upward = {pair for pair, along in zip(pairs, edges["along"], strict=True) if along == "output"}
    told = [along == "output" or pair not in upward for pair, along in zip(pairs, edges["along"], strict=True)]
    shown = edges.loc[np.array(told, np.bool_)]
    for (below, above, along), its in shown.groupby(["below", "above", "along"], dropna=False, sort=False):
        points = its.sort_values(["prompt", "output"])
        places = points.iloc[np.unique(np.linspace(0, len(points) - 1, PLACES).round().astype(int))]
        at = [{"prompt": int(p), "output": int(o)} for p, o in places[["prompt", "output"]].to_numpy()]
        yield {"below": below, "above": above if isinstance(above, str) else None, "along": along, "at": at}


def as_text(
    found: Sequence[dict[str, Any]], maps: Sequence[Regions], waits: Waits, costs: Sequence[DeviceCosts]
) -> Group:
    """The rows of all maps, a table an objective, and what each device waits for."""
    parts: list[Any] = []
    for (_, group), each in zip(groupby(found, lambda row: row["objective"]), maps, strict=True):
        own = list(group)
        title = Text(f"\n{named(each.aim, simulated=each.simulated)}: share of the plane in %", style="bold")
        parts += [title, _table(own), *(_note(line) for row in own for line in _crossings(row))]
    parts += [_note(LEGEND), *[_note(gains(maps[-1]))] * maps[-1].aim.needs_energy]
    return Group(*parts, *bottleneck_text.tables(waits), *map(_note, bottleneck_text.over_link(waits, costs)))


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    extra = {"no_device_share": "no device", "unseen_share": "not seen"}
    shown = {key: name for key, name in extra.items() if any(row[key] for row in found)}
    beside = {"median_margin": "margin", "sure_share": "sure", "gain_band_share": "gain band"}
    for name in ("history", *found[0]["shares"], *shown.values(), *beside.values()):
        table.add_column(name, justify="right")
    for row in found:
        shares = [*row["shares"].values(), *(row[key] for key in shown)]
        table.add_row(str(row["history"]), *(f"{100 * x:.1f}" for x in shares), *(_percent(row[key]) for key in beside))
    return table


def _percent(share: float | None) -> str:
    return percent(None if share is None else 100 * share)


def _crossings(row: dict[str, Any]) -> Iterator[str]:
    """Where one region ends and the next begins."""
    for edge in row["boundaries"]:
        along, across = ("decode", "prompt") if edge["along"] == "output" else ("prompt", "decode")
        points = [(p["output"], p["prompt"]) if along == "decode" else (p["prompt"], p["output"]) for p in edge["at"]]
        said = ", ".join(f"{length} at {across} {at}" for length, at in points)
        above = edge["above"] or "no device"
        yield f"history {row['history']}: {edge['below']}, then {above} from {along} {said}"


def _note(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 0, 0, 2))


def points(maps: Sequence[Regions], waits: Waits) -> pd.DataFrame:
    """Every point of every map: `best` is null where no device keeps to the cap or a model has not seen it.

    Beside it what each device waits for most, and its share of the time; null where its model has not seen the point.
    """
    beside = bottleneck_text.columns(waits)
    return pd.concat([_points(each, beside) for each in maps], ignore_index=True)


def _points(found: Regions, beside: dict[str, Any]) -> pd.DataFrame:
    history, prompt, output = np.meshgrid(found.grid.history, found.grid.prompt, found.grid.output, indexing="ij")
    known = found.known.ravel()
    names = np.array([*found.devices, None], object)
    columns = {
        "history": history.ravel(),
        "prompt": prompt.ravel(),
        "output": output.ravel(),
        "best": names[np.where(known, found.label.ravel(), NONE)],
        "cost": np.where(known, found.best.ravel(), np.nan),
        "margin": np.where(known, found.margin.ravel(), np.nan),
        "in_gain_band": known & found.band.ravel(),
        "measured": found.label.ravel() != UNSEEN,
    }
    flips = {} if found.flips is None else {"flips": np.where(known, found.flips.ravel(), np.nan)}
    about = {"objective": found.aim.objective, "unit": found.aim.unit}
    return pd.DataFrame({**about, **columns, **flips, **beside})
