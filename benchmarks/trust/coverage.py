"""How often 95 % intervals hold the truth, over runs whose systematic errors are drawn anew from what is stated."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.row import Row
from benchmarks.trust import law
from joulelab.analysis.dataset import Phases
from joulelab.analysis.means import means
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.estimation import phase_model
from joulelab.analysis.modelling.intervals import LEVEL, Errors, uncertainty
from joulelab.analysis.modelling.losses import scale, solve
from joulelab.analysis.phases import reduce
from joulelab.calibration.integrals import Floats

SEEDS, MANY_SEEDS = 100, 1000
LOW, HIGH, SELECTED = 0.93, 0.97, 0.90
CHANCE = 0.01
"""How often a row may fail where every interval is as good as its limit."""
COEFFICIENT, CHOSEN, ENERGY = "coefficient, form given", "coefficient, form chosen by the data", "phase energy"


class Held(NamedTuple):
    """Whether an interval of a run held the truth, and whether one from the scatter of its repeats alone did."""

    kind: str
    of: str
    held: bool
    alone: bool


def few_fast() -> Iterator[Row]:
    """95 % intervals on a 1 kHz meter, 100 runs."""
    yield from _rows("fast", SEEDS)


def many_fast() -> Iterator[Row]:
    """95 % intervals on a 1 kHz meter, 1,000 runs."""
    yield from _rows("fast", MANY_SEEDS)


def few_slow() -> Iterator[Row]:
    """95 % intervals on a 10 Hz sensor that averages over 100 ms, deconvolved, 100 runs."""
    yield from _rows("slow", SEEDS)


def many_slow() -> Iterator[Row]:
    """95 % intervals on a 10 Hz sensor that averages over 100 ms, deconvolved, 1,000 runs."""
    yield from _rows("slow", MANY_SEEDS)


def _rows(sensor: str, seeds: int) -> Iterator[Row]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = [held for run in pool.map(partial(_run, sensor), range(seeds), chunksize=10) for held in run]
    rates = pd.DataFrame(found).groupby(["kind", "of"])[["held", "alone"]].mean()
    for kind in (COEFFICIENT, ENERGY):
        own = rates.loc[kind]
        yield _row(f"{sensor}, {kind} covered least", own["held"].min(), seeds, len(own), LOW, own["alone"].min())
        yield _row(f"{sensor}, {kind} covered most", own["held"].max(), seeds, len(own), HIGH)
    own = rates.loc[CHOSEN]
    yield _row(f"{sensor}, {CHOSEN}, covered least", own["held"].min(), seeds, len(own), SELECTED, own["alone"].min())


def _row(what: str, rate: float, seeds: int, intervals: int, limit: float, alone: float | None = None) -> Row:
    """A few runs are held to what chance makes of the limit, the worst of so many intervals taken."""
    ends = stats.binomtest(round(rate * seeds), seeds).proportion_ci()
    better: Literal["lower", "higher"] = "lower" if limit == HIGH else "higher"
    if seeds < MANY_SEEDS:
        tail = CHANCE / intervals
        limit = float(stats.binom.ppf(1 - tail if better == "lower" else tail, seeds, limit)) / seeds
        what += ", limit as wide as chance makes it"
    what = f"{what} ({seeds} simulated runs, worst of {intervals}, itself in {ends.low:.3f} to {ends.high:.3f})"
    return Row(what, float(rate), "1", limit, better, {} if alone is None else {"repeats alone": float(alone)})


def _run(sensor: str, seed: int) -> list[Held]:
    with tempfile.TemporaryDirectory() as folder:
        phases = reduce(law.record(Path(folder) / "run", law.SENSORS[sensor], law.INTERVAL_NS[sensor], seed))
    energies = next(case for case in cases(phases, 5) if case.target == "energy")
    return [*_energies(phases), *_coefficients(COEFFICIENT, energies), *_coefficients(CHOSEN, energies)]


def _energies(phases: Phases) -> Iterator[Held]:
    found = means(phases)
    repeats = stats.t.ppf((1 + LEVEL) / 2, found.table["runs"] - 1) * found.budget["repetition"]
    table = found.table.assign(alone=repeats).fillna({"output": 1})
    for phase, own in table.groupby("phase"):
        error = (own["energy_j"] - law.costs("energy", str(phase), own)).abs()
        held, alone = error <= own["energy_k"] * own["energy_u_j"], error <= own["alone"]
        names = (f"{phase} {h} {p} {o}" for h, p, o in zip(own["history"], own["prompt"], own["output"], strict=True))
        yield from map(Held, repeat(ENERGY), names, held, alone)


def _coefficients(kind: str, case: Case) -> Iterator[Held]:
    """The truth of a coefficient is what its form, fitted to the law, has.

    Which coefficients there are is chosen anew in each run, so that those of a phase are counted together then.
    """
    for phase in ("prefill", "decode"):
        points = case.points(phase)
        model = phase_model(case, phase, law.LAW["energy", phase][0] if kind == COEFFICIENT else None)
        X = model.design(points)
        true = solve(X, law.costs("energy", phase, points))
        alone = _alone(X, points["y"].to_numpy())
        for coefficient, value, half in zip(model.coefficients, true, alone, strict=True):
            held = coefficient.low <= value <= coefficient.high
            of = f"{phase} {coefficient.name}" if kind == COEFFICIENT else phase
            yield Held(kind, of, held, abs(coefficient.value - value) <= half)


def _alone(X: Floats, y: Floats) -> Floats:
    """Half the intervals of coefficients from residuals alone."""
    size = scale(X, y)
    nothing = np.zeros(len(y))
    unknown = Errors(nothing[:, None], np.diag(nothing), nothing, nothing)
    return uncertainty(X / size[:, None], y / size, unknown).half
