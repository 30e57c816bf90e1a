"""How often 95 % intervals hold the truth, over simulated runs of many seeds through the whole path to the fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.backbone.simulated import plans, recorded
from benchmarks.row import Row
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.losses import Fit
from joulelab.analysis.modelling.models import Model, fit
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.phases import reduce
from joulelab.bench import Plan
from joulelab.calibration.integrals import Floats
from joulelab.recording import RunDir
from joulelab.simulation import truth

SEEDS, MANY_SEEDS = 20, 200
MIN_PERIODS = 5.0
TIME = "time"
KEYS = ["of", "phase", "history", "prompt", "output"]
"""What has a truth: a phase of a configuration, its time or (`of` the channel) its energy."""


class Estimate(NamedTuple):
    """What a run's fit says of one phase: how it found the coefficients [k] from the design of its configurations
    [n, k], half the width of their intervals [k] and of the predictions' [n].
    """

    target: str
    configurations: pd.MultiIndex
    fit: Fit
    design: Floats
    beta: Floats
    beta_half: Floats
    half: Floats


def few_seeds() -> Iterator[Row]:
    """How often 95 % intervals hold the simulator's truth, over 20 seeds."""
    yield from _coverage(SEEDS)


def many_seeds() -> Iterator[Row]:
    """How often 95 % intervals hold the simulator's truth, over 200 seeds."""
    yield from _coverage(MANY_SEEDS)


def _coverage(seeds: int) -> Iterator[Row]:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for plan in plans():
            estimates, truths = zip(*pool.map(partial(_play, plan), range(seeds)), strict=True)
            true = pd.concat(truths).groupby(level=KEYS).mean()
            yield from _rows(f"{plan.device} (simulated, {seeds} seeds)", list(chain(*estimates)), true)


def _rows(device: str, estimates: Sequence[Estimate], true: pd.Series[float]) -> Iterator[Row]:
    for target in ("time", "energy"):
        held = [_held(estimate, true) for estimate in estimates if estimate.target == target]
        coefficients, predictions, fitted = (float(np.concatenate(part).mean()) for part in zip(*held, strict=True))
        yield Row(f"{device}: {target} coefficients that hold the truth", coefficients, "1", 0.9, "higher")
        misfit_aside = {"misfit aside": fitted}
        yield Row(f"{device}: {target} predictions that hold the truth", predictions, "1", 0.9, "higher", misfit_aside)


def _held(estimate: Estimate, true: pd.Series[float]) -> tuple[NDArray[np.bool_], ...]:
    """Which intervals hold the truth: the coefficients', the predictions', and those as if the form were true.

    The truth of a coefficient is what the same form, fitted to the true means, has.
    """
    mean = np.asarray(true.reindex(estimate.configurations), np.float64)
    beta = estimate.fit(estimate.design, mean)
    predicted = estimate.design @ estimate.beta
    return (
        np.abs(estimate.beta - beta) <= estimate.beta_half,
        np.abs(predicted - mean) <= estimate.half,
        np.abs(predicted - estimate.design @ beta) <= estimate.half,
    )


def _play(plan: Plan, seed: int) -> tuple[list[Estimate], pd.Series[float]]:
    with recorded(plan, seed) as run:
        phases = reduce(run)
        true = _truth(run)
    found = zip(fit(phases, MIN_PERIODS), cases(phases, MIN_PERIODS), strict=True)
    return [_estimate(model, case, part) for model, case in found for part in model.phases], true


def _estimate(model: Model, case: Case, part: PhaseModel) -> Estimate:
    points = case.points(part.phase)
    design, found = part.design(points), Fit(np.array(part.form.signed))
    of = points.assign(of=model.channel or TIME, phase=part.phase)
    beta_half = np.array([coefficient.high for coefficient in part.coefficients]) - part.beta
    configurations = pd.MultiIndex.from_frame(of[KEYS])
    return Estimate(model.target, configurations, found, design, part.beta, beta_half, part.half_width(points))


def _truth(run: RunDir) -> pd.Series[float]:
    """The true mean time [s] and energies [J] of every configuration of a run, by `KEYS`."""
    asked = {record["inference"]: record for record in run.records("inference")}
    rows = [
        (of, phase.phase, record["history"], record["prompt"], 1 if phase.phase == "prefill" else record["output"], y)
        for phase in truth(run.manifest, asked.values())
        for record in [asked[phase.inference]]
        for of, y in {TIME: phase.duration_s, **phase.energy_j}.items()
        if not record["warmup"]
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "y"]).groupby(KEYS)["y"].mean()
