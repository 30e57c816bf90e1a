"""Ways to get phase energies out of run directories, each measured in a process of its own.

Takes a way's name and a runs folder. Prints as JSON the time [s], the peak of memory [MB] and, to compare, the sum of
all phase energies [J].
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backbone.runs import CHANNEL, METER
from joulelab.calibration.integrals import NS, Floats, Ints
from joulelab.recording import RunDir, find_runs

Energies = Callable[[Any, Ints, Ints], Any]
"""From samples (a `pyarrow.Table`) and the edges of phases [ns] to their energies [J]."""


def main(way: str, folder: Path) -> None:
    library, reduce = WAYS[way]
    import_module(library)
    runs = list(find_runs(folder))
    start = time.perf_counter()
    joules = reduce(runs)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": _peak_mb(), "joules": joules}))


def _peak_mb() -> float:
    """Of this process alone: getrusage(2) hands on the peak of the one that spawned it."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 / 1e6 if match else float("nan")


def _reduce_all(runs: Sequence[RunDir]) -> float:
    from joulelab.analysis.phases import reduce_all

    return float(reduce_all(runs).table["energy_j"].sum())


def _one_after_another(energies: Energies) -> Callable[[Sequence[RunDir]], float]:
    def reduce(runs: Sequence[RunDir]) -> float:
        # A run is opened anew, so that what it remembers goes when it is done.
        return float(sum(energies(run.samples(METER.name), *_edges(RunDir(run.path))).sum() for run in runs))

    return reduce


def _edges(run: RunDir) -> tuple[Ints, Ints]:
    """Start and stop of the prefill, the decode and the total of each inference [ns]."""
    spans = []
    for record in run.records("inference"):
        prefill, decode = ((phase["start"], phase["stop"]) for phase in record["phases"])
        spans += [prefill, decode, (prefill[0], decode[1])]
    edges = np.array(spans)
    return edges[:, 0], edges[:, 1]


def with_numpy(samples: Any, start: Ints, stop: Ints) -> Floats:
    before, after, watts = (samples[name].to_numpy() for name in ("before_ns", "after_ns", CHANNEL.name))
    t = (before + after) / 2
    joules = np.concatenate([[0.0], np.cumsum((watts[1:] + watts[:-1]) / 2 * np.diff(t) * NS)])
    return np.asarray(np.interp(stop, t, joules) - np.interp(start, t, joules))


def with_pandas(samples: Any, start: Ints, stop: Ints) -> Floats:
    frame = samples.to_pandas()
    t = (frame["before_ns"] + frame["after_ns"]) / 2
    steps = (frame["power"] + frame["power"].shift()) / 2 * t.diff() * NS
    joules = steps.fillna(0.0).cumsum().set_axis(t)
    at = joules.reindex(joules.index.union(np.unique([start, stop]))).interpolate("index")
    return np.asarray(at.loc[stop].to_numpy() - at.loc[start].to_numpy())


def with_polars(samples: Any, start: Ints, stop: Ints) -> Floats:
    import polars as pl

    t, watts, joules = pl.col("t"), pl.col("power"), pl.col("joules")
    knots = pl.DataFrame(samples).select(((pl.col("before_ns") + pl.col("after_ns")) / 2).alias("t"), watts)
    steps = (watts + watts.shift()) / 2 * t.diff() * NS
    slope = (watts + watts.shift(-1)) / 2 * NS
    knots = knots.with_columns(steps.fill_null(0.0).cum_sum().alias("joules"), slope.alias("slope"))
    edges = pl.DataFrame({"edge": np.concatenate([start, stop]).astype(float)}).with_row_index().sort("edge")
    at = edges.join_asof(knots, left_on="edge", right_on="t").sort("index")
    found: Floats = at.select(joules + pl.col("slope") * (pl.col("edge") - t)).to_series().to_numpy()
    return found[len(start) :] - found[: len(start)]


SQL = f"""
WITH readings AS (SELECT (before_ns + after_ns) / 2 AS t, power FROM samples),
steps AS (
    SELECT t, (lag(power) OVER w + power) / 2 * (t - lag(t) OVER w) * {NS} AS step,
           (power + lead(power) OVER w) / 2 * {NS} AS slope
    FROM readings WINDOW w AS (ORDER BY t)
),
knots AS (SELECT t, slope, sum(coalesce(step, 0)) OVER (ORDER BY t ROWS UNBOUNDED PRECEDING) AS joules FROM steps)
SELECT joules + slope * (edge - t) AS joules FROM edges ASOF JOIN knots ON edge >= t ORDER BY number
"""


def with_duckdb(samples: Any, start: Ints, stop: Ints) -> Floats:
    import duckdb
    import pyarrow as pa

    at = np.concatenate([start, stop])
    with duckdb.connect() as connection:
        connection.register("samples", samples)
        connection.register("edges", pa.table({"number": np.arange(len(at)), "edge": at}))
        found: Floats = np.asarray(connection.execute(SQL).fetchnumpy()["joules"])
    return found[len(start) :] - found[: len(start)]


WAYS: dict[str, tuple[str, Callable[[Sequence[RunDir]], float]]] = {
    "joulelab": ("joulelab.analysis.phases", _reduce_all),
    "NumPy": ("numpy", _one_after_another(with_numpy)),
    "pandas": ("pandas", _one_after_another(with_pandas)),
    "Polars": ("polars", _one_after_another(with_polars)),
    "DuckDB": ("duckdb", _one_after_another(with_duckdb)),
}
"""Each way and what it imports, which is not timed."""

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
