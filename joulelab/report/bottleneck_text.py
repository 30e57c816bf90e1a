"""What devices wait for in words and figures: the kind of work that takes most, over what share of the plane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from joulelab.analysis.space.bottlenecks import KINDS, Bottlenecks
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.report.moves import link_alone, named

Waits = Sequence[Sequence[Bottlenecks]]
"""Of each device, where the history is there; and perhaps where it comes over a link."""


def rows(waits: Waits) -> list[dict[str, Any]]:
    """A row a device and history: the shares of the plane, both axes logarithmic, in which each kind takes most."""
    return [_row(each, k) for found in waits for each in found for k in range(len(each.grid.history))]


def _row(found: Bottlenecks, k: int) -> dict[str, Any]:
    share, seen = found.grid.share, found.seen[k]
    return {
        "device": found.device,
        "history": int(found.grid.history[k]),
        "over_link": found.link is not None,
        "shares": {kind: share(seen & (found.dominant[k] == number)) for number, kind in enumerate(KINDS)},
        "unseen_share": share(~seen),
    }


def tables(waits: Waits) -> Iterator[Text | Table]:
    """A table with its title for turns whose history is there, and one for those whose history comes over a link."""
    for found in waits:
        link = found[0].link
        where = f"; the history comes over a link of {named(link)}" if link else ""
        origin = found[0].model.origin
        yield Text(f"\nWhat takes most of the time, {origin}{where}: share of the plane in %", style="bold")
        yield _table(rows([found]))


def _table(found: Sequence[dict[str, Any]]) -> Table:
    each = [row["shares"] | {"not seen": row["unseen_share"]} for row in found]
    shown = [name for name in each[0] if any(shares[name] for shares in each)]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("device")
    for name in ("history", *shown):
        table.add_column(name, justify="right")
    for row, shares in zip(found, each, strict=True):
        table.add_row(row["device"], str(row["history"]), *(f"{100 * shares[name]:.1f}" for name in shown))
    return table


def over_link(waits: Waits, costs: Sequence[DeviceCosts]) -> list[str]:
    """What is to be said of the transfers, where there are any."""
    return link_alone(costs, ["time"]) if any(found[0].link for found in waits) else []


def columns(waits: Waits) -> dict[str, Any]:
    """By name, for every point of the grid: the kind that takes most of each device's time, and its share."""
    found: dict[str, Any] = {}
    kinds = np.array([*KINDS, None], object)
    for each in (each for its in waits for each in its):
        name, seen = f"{each.device}_over_link" if each.link else each.device, each.seen.ravel()
        found[f"bottleneck_{name}"] = kinds[np.where(seen, each.dominant.ravel(), -1)]
        found[f"share_{name}"] = np.where(seen, each.share.ravel(), np.nan)
    return found
