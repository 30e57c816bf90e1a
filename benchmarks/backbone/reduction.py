"""How long 200 runs take to become phase energies, and how much memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.backbone import reducers
from benchmarks.backbone.runs import write_runs
from benchmarks.row import Row
from benchmarks.timing import taking_turns

ROUNDS = 5
AGREE_REL = 1e-4
"""The others interpolate the energy at the edges of a phase, where ours interpolates the power."""


class Cost(NamedTuple):
    seconds: float
    peak_mb: float
    joules: float


def cost() -> Iterator[Row]:
    """Reducing 200 runs of 100,000 samples to phase energies."""
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder))
        ways = {way: partial(_measure, way, folder) for way in reducers.WAYS}
        found = taking_turns(ROUNDS, {way: ways.pop(way) for way in ("joulelab", "NumPy", "Polars")})
        found |= {way: [measure()] for way, measure in ways.items()}  # slower: one round shows it
    time_s = {way: statistics.median(cost.seconds for cost in costs) for way, costs in found.items()}
    peak_mb = {way: statistics.median(cost.peak_mb for cost in costs) for way, costs in found.items()}
    _agree({way: costs[0].joules for way, costs in found.items()})
    ours_s, ours_mb = time_s.pop("joulelab"), peak_mb.pop("joulelab")
    over_numpy = {way: other / time_s["NumPy"] for way, other in time_s.items()}
    yield Row("reduce 200 runs x 100,000 samples", ours_s, "s", None, "lower", time_s)
    yield Row("reduce 200 runs, time over NumPy's", ours_s / time_s["NumPy"], "x", 0.8, "lower", over_numpy)
    yield Row("reduce 200 runs, peak memory", ours_mb, "MB", 300, "lower", peak_mb)


def _measure(way: str, folder: str) -> Cost:
    command = [sys.executable, "-m", reducers.__name__, way, folder]
    return Cost(**json.loads(subprocess.check_output(command)))


def _agree(joules: dict[str, float]) -> None:
    for way, total in joules.items():
        if abs(total / joules["NumPy"] - 1) > AGREE_REL:
            raise AssertionError(f"{way} finds {total} J where NumPy finds {joules['NumPy']} J")
