"""Phases tables of a device whose costs are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from joulelab.analysis.dataset import SCHEMA, Phases
from joulelab.analysis.shapes import Shape
from joulelab.quantities import Channel, Scope, SensorModel

GRID = list(product((0, 256), (16, 64, 120, 128, 136, 256), (1, 16, 64)))
TRUE_TIME = {"start": 0.01, "tile": 1e-4, "pair": 2e-8, "pass": 0.02, "context": 3e-7}
SHAPE = Shape(
    weights=10**9,
    weight_bytes=10**9,
    layers=16,
    heads=32,
    head_dim=64,
    hidden=2048,
    kv_bytes_per_token=32768,
    vocabulary=32000,
)
METER = Channel("meter.power", "W", scope=Scope.INPUT, sensor=SensorModel(period_s=1e-3, gain_u_rel=0.01))


def true_seconds(phase: str, grid: Any) -> NDArray[np.float64]:
    """Seconds of a device whose matrix kernels take 64 tokens at a time."""
    h, p, o = np.array(grid, float).T
    c = TRUE_TIME
    if phase == "prefill":
        return np.asarray(c["start"] + c["tile"] * np.ceil(p / 64) * 64 + c["pair"] * (p * h + p * (p + 1) / 2))
    return np.asarray(c["pass"] * (o - 1) + c["context"] * ((o - 1) * (h + p) + (o - 1) * o / 2))


def synthetic(
    noise: float = 0.0, seed: int = 0, repeats: int = 5, gain: float = 1.0, grid: Any = GRID, **columns: Any
) -> Phases:
    """A table of inferences of that device, which draws 10 W and 1 J more a phase; the noise is relative."""
    rng = np.random.default_rng(seed)
    asked = pd.DataFrame(list(grid) * repeats, columns=["history", "prompt", "output"])
    asked["inference"], asked["repeat"] = range(len(asked)), np.repeat(range(repeats), len(grid))
    parts = {}
    for phase in ("prefill", "decode"):
        seconds = true_seconds(phase, asked[["history", "prompt", "output"]].to_numpy())
        costs = np.stack([seconds, gain * (10 * seconds + 1)], axis=1)
        parts[phase] = costs * (1 + noise * rng.standard_normal(costs.shape))
    parts["decode"][asked["output"] == 1] = 0
    parts["total"] = parts["prefill"] + parts["decode"]
    frames = [
        asked.assign(phase=phase, duration_s=costs[:, 0], energy_j=costs[:, 1])[costs[:, 0] > 0]
        for phase, costs in parts.items()
    ]
    common = {"session": "s", "run": "r", "device": "d", "origin": "measured", "channel": "meter.power", "status": "ok"}
    table = pd.concat(frames, ignore_index=True).assign(**{**common, "gain_u_rel": 0.01, **columns})
    idle = pd.DataFrame([{"run": "r", "channel": "meter.power", "idle_w": 3.0, "idle_u_w": 0.1, "steps": 2}])
    return Phases(table.reindex(columns=SCHEMA.names), {"meter.power": METER}, idle=idle)


def only(phases: Phases, *names: str) -> Phases:
    """The rows of some phases."""
    return replace(phases, table=phases.table[phases.table["phase"].isin(names)])


def untapped(phases: Phases) -> Phases:
    """The same without its power channel."""
    return replace(phases, table=phases.table.assign(channel=np.nan, energy_j=np.nan))
