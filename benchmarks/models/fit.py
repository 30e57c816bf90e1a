"""How long a fit of 100,000 phases takes, and what the losses are worth where rows are clean and where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from benchmarks.row import Row
from benchmarks.timing import medians, seconds, taking_turns
from joulelab.analysis.dataset import SCHEMA, Phases
from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.choice import INNER_FOLDS, ROUNDS, folds, supported
from joulelab.analysis.modelling.fitting import MOST_POINTS
from joulelab.analysis.modelling.forms import CONTEXT, PAIR, PASS, START, Form
from joulelab.analysis.modelling.losses import Fit, Loss, solve
from joulelab.analysis.modelling.models import fit
from joulelab.analysis.modelling.terms import Term
from joulelab.calibration.integrals import Floats

PHASES, REPEATS, ROUNDS_TIMED = 100_000, 5, 3
SEEDS = 20
LOSSES: tuple[Loss, ...] = ("wls", "huber", "quantile")
CV, SHARE, FACTOR = 0.02, 0.05, 1.8
"""What repeats scatter by; the share of configurations whose runs were all throttled, and what that took."""
LAW = {
    "prefill": (Form("time", (START, Term("tile", (64.0,)), PAIR)), np.array([0.01, 1e-4, 2e-8])),
    "decode": (Form("time", (PASS, CONTEXT)), np.array([0.02, 3e-7])),
}
GRID = list(product((0, 256, 1024), (16, 64, 120, 136, 256, 512), (8, 16, 64)))


def hundred_thousand() -> Iterator[Row]:
    """A fit of 100,000 phases, its forms chosen, beside forms that are solved one by one."""
    grid = list(product(range(0, 4096, 256), range(8, 1608, 8), (8, 16, 32, 64)))
    table = _table(grid[: PHASES // (2 * REPEATS) + 1], 0, 0.0).iloc[:PHASES]
    phases = Phases(table)
    ways = {"all forms at once": lambda: _fit(phases), "one by one": lambda: _fit(phases) + _one_by_one(phases)}
    took = medians(taking_turns(ROUNDS_TIMED, ways))
    others = {"the choice form by form": took["one by one"]}
    yield Row(f"fit of {len(table):,} phases", took["all forms at once"], "s", 1.0, "lower", others)


def losses() -> Iterator[Row]:
    """Errors against the truth of fits that minimise squares, Huber's norm and the MAPE."""
    for what, share in (("clean rows", 0.0), (f"{SHARE:.0%} of the configurations throttled", SHARE)):
        errors: dict[str, float] = {
            loss: float(np.mean([_error(loss, share, seed) for seed in range(SEEDS)])) for loss in LOSSES
        }
        least_squares = errors.pop("wls")
        yield Row(f"decode time, {what}: error of least squares", least_squares, "%", None, "lower", errors)


def _fit(phases: Phases) -> float:
    return seconds(partial(fit, phases))


def _one_by_one(phases: Phases) -> float:
    return sum(seconds(partial(_by_itself, case, phase)) for case in cases(phases, 0) for phase in case.phases)


def _by_itself(case: Case, phase: str) -> list[float]:
    """The held-out errors of each form, from fits of their own."""
    points = case.points(phase)
    points = points.sample(min(MOST_POINTS, len(points)), random_state=0)
    forms = supported(candidates(case.target, phase, points), points)
    y = points["y"].to_numpy()
    return [_held_out(form.design(points), y, seed) for form in forms for seed in range(ROUNDS)]


def _held_out(X: Floats, y: Floats, seed: int) -> float:
    fold = folds(len(y), INNER_FOLDS, seed)
    errors = [np.abs(X[fold == k] @ solve(X[fold != k], y[fold != k]) / y[fold == k] - 1) for k in range(INNER_FOLDS)]
    return float(np.concatenate(errors).mean())


def _error(loss: Loss, share: float, seed: int) -> float:
    """The mean error in percent of the decode model against the law."""
    case = next(iter(cases(Phases(_table(GRID, seed, share)), 0)))
    form, beta = LAW["decode"]
    points = case.points("decode")
    design = form.design(points)
    found = Fit(np.array(form.signed), loss)(design, points["y"].to_numpy())
    return float(np.abs(design @ found / (design @ beta) - 1).mean() * 100)


def _table(grid: list[tuple[int, int, int]], seed: int, throttled: float) -> pd.DataFrame:
    """Inferences whose times follow the law, up to scatter; of some configurations all took longer."""
    rng = np.random.default_rng(seed)
    points = pd.DataFrame(grid, columns=["history", "prompt", "output"])
    slow = np.where(rng.random(len(points)) < throttled, FACTOR, 1.0)
    parts = []
    for phase, (form, beta) in LAW.items():
        cost = np.tile(form.design(points) @ beta * slow, REPEATS)
        asked = pd.concat([points] * REPEATS, ignore_index=True)
        cost *= 1 + CV * rng.standard_normal(len(cost))
        parts.append(asked.assign(inference=range(len(cost)), phase=phase, duration_s=cost))
    common = {"session": "s", "run": "r", "device": "d", "origin": "simulated", "status": "ok"}
    return pd.concat(parts, ignore_index=True).assign(**common).reindex(columns=SCHEMA.names)
