"""The map of the inference space: how fast it is, that it says what the models say, and how true that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.models import box
from benchmarks.models.sessions import HISTORY, OUTPUT, PROMPT
from benchmarks.models.truth import truths
from benchmarks.row import Row
from benchmarks.timing import medians, seconds, taking_turns
from joulelab.analysis.space.aims import Aim
from joulelab.analysis.space.box import log_steps
from joulelab.analysis.space.costs import DeviceCosts, cost
from joulelab.analysis.space.regions import SURE, Costs, Regions, best_of, region_maps
from joulelab.analysis.space.surface import Grid
from joulelab.calibration.integrals import Floats, Ints

LENGTHS, HISTORIES, DEVICES, ROUNDS = 512, 8, 5, 5
LIMIT_S = 0.5
AIMS = (Aim("latency"), Aim("energy"), Aim("edp"), Aim("energy-capped", cap_s=20.0))
TRUE_HISTORIES, TRUE_STEPS = (0, 512, 2048, 8192), 12


def maps() -> Iterator[Row]:
    """The map of 512 x 512 x 8 points for 5 devices, and labels against the noise-free truth of the simulated bench."""
    costs = box.costs(box.measured())
    several = [replace(costs[k % len(costs)], device=f"device {k}") for k in range(DEVICES)]
    grid = Grid(np.linspace(*HISTORY, HISTORIES).round().astype(np.int64), _lengths(PROMPT), _lengths(OUTPUT))
    for aim in AIMS[:2]:
        yield from _speed(several, grid, aim)
    yield from _truth(costs)


def _lengths(ends: tuple[int, int]) -> Ints:
    """So many different whole numbers, in about equal ratios."""
    steps = next(n for n in range(LENGTHS, ends[1]) if len(log_steps(ends, n)) >= LENGTHS)
    return log_steps(ends, steps)[:LENGTHS]


def _speed(costs: Sequence[DeviceCosts], grid: Grid, aim: Aim) -> Iterator[Row]:
    (found,) = region_maps(costs, grid, [aim], draws=0)
    took = medians(
        taking_turns(
            ROUNDS,
            {
                "map": partial(seconds, partial(region_maps, costs, grid, [aim], draws=0)),
                "Model.predict of every point": partial(seconds, partial(_by_points, costs, grid, aim)),
            },
        )
    )
    what = f"map of {aim.objective}, {' x '.join(map(str, grid.shape))} points, {DEVICES} devices"
    yield Row(what, took.pop("map"), "s", LIMIT_S, "lower", took)
    best = _by_points(costs, grid, aim)
    yield Row(f"{what}: apart from Model.predict, relative", _apart(found, best), "1", 1e-9, "lower")


def _by_points(costs: Sequence[DeviceCosts], grid: Grid, aim: Aim) -> Floats:
    judged = Costs(costs, aim)
    return np.stack([np.min(judged.at(history, grid.prompt[:, None], grid.output), axis=0) for history in grid.history])


def _apart(found: Regions, best: Floats) -> float:
    return float(np.abs(found.best / best - 1).max())


def _truth(costs: Sequence[DeviceCosts]) -> Iterator[Row]:
    """Labels of a coarse map, and what the devices that they name really cost, beside the truth's best."""
    grid = Grid(np.array(TRUE_HISTORIES), log_steps(PROMPT, TRUE_STEPS), log_steps(OUTPUT, TRUE_STEPS))
    h, p, o = (axis.ravel() for axis in np.meshgrid(grid.history, grid.prompt, grid.output, indexing="ij"))
    real = truths([each.device for each in costs], list(zip(h.tolist(), p.tolist(), o.tolist(), strict=True)))
    for aim, found in zip(AIMS, region_maps(costs, grid, AIMS), strict=True):
        paid = [cost(aim.objective, each.seconds(h, p, o), each.joules(h, p, o), aim.cap_s) for each in real]
        yield from _judged(found, np.stack(paid))


def _judged(found: Regions, paid: Floats) -> Iterator[Row]:
    """Of `paid` [devices, points], what each device really costs."""
    assert found.flips is not None
    label, sure = found.label.ravel(), found.flips.ravel() <= 1 - SURE
    right = label == best_of([*paid])
    named = paid[label, np.arange(len(label))]
    kept = np.isfinite(named) & (label >= 0)
    dearer = 100 * (named[kept] / paid.min(axis=0)[kept] - 1)
    what = f"{found.aim.objective}, {len(label)} points against the noise-free truth"
    yield Row(f"{what}: label right", 100 * right.mean(), "%", None, "higher")
    yield Row(f"{what}: right where it is sure", 100 * right[sure].mean(), "%", 100 * SURE, "higher")
    yield Row(f"{what}: costs more than the best, mean", dearer.mean(), "%", None, "lower")
