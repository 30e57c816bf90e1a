"""What the turns of a plan wait for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from joulelab.analysis.placement.plans import Plan
from joulelab.analysis.placement.tables import RE_PREFILL, TRANSFER, Table
from joulelab.analysis.space.bottlenecks import KINDS, kinds
from joulelab.analysis.space.costs import DeviceCosts
from joulelab.calibration.integrals import Floats


def waits(table: Table, plan: Plan, costs: Sequence[DeviceCosts]) -> dict[str, Floats]:
    """What each kind of work takes of each turn [turns] in s, by the time models; together what the turn takes."""
    held, turns = table.history, np.array(table.view.turns)
    whole = np.arange(table.view.first, len(turns))
    moves = plan.way == TRANSFER
    history = held[np.where(moves, whole, plan.held)]
    prompt = held[whole] - history + turns[whole, 0]
    points = pd.DataFrame({"history": history, "prompt": prompt, "output": turns[whole, 1]})
    found = {kind: np.zeros(len(points)) for kind in KINDS}
    for device in np.unique(plan.device):
        own = plan.device == device
        for kind, seconds in kinds(costs[device].time, points[own]).items():
            found[kind][own] = seconds
    row, _, device, _ = plan.cells
    here = table.seconds[row, whole, device, RE_PREFILL]
    return found | {"transfer": np.where(moves, table.seconds[plan.cells] - here, 0.0)}
