"""Which device is best where: label, margin, how often the label flips, and what meters that differ would move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from joulelab.analysis.space.aims import Aim
from joulelab.analysis.space.box import seen
from joulelab.analysis.space.costs import DeviceCosts, cost, others_w
from joulelab.analysis.space.draws import drawn
from joulelab.analysis.space.surface import Grid, Surface
from joulelab.calibration.integrals import Floats
from joulelab.quantities import Origin

NONE, UNSEEN = -1, -2
"""Labels of points where no device keeps to the cap, and of points that a model has not seen."""
DRAWS = 100
SURE = 0.9
"""A label that flips in more than the rest of the draws is not to be relied on."""
UNCERTIFIED_REL = 0.05
"""What the gain of a meter may be off by where nothing is known of it."""
COVERAGE = 1.96


@dataclass(frozen=True)
class Regions:
    """The map of one aim. Arrays are [H, P, O] of the `grid`.

    `label` is the number of the best device, or NONE or UNSEEN; `best` what it costs, `margin` the second best's cost
    over the best's, less 1 (infinite where no other device keeps to the cap). `flips` is the share of models drawn from
    what the data leave possible with another label; `band` says where meters that read differently, each by at
    most its limit in `gains`, would change it.
    """

    aim: Aim
    devices: tuple[str, ...]
    gains: tuple[float, ...]
    simulated: bool
    grid: Grid
    label: NDArray[np.int8]
    best: Floats
    margin: Floats
    band: NDArray[np.bool_]
    flips: Floats | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.asarray(self.label >= 0)


class Costs:
    """What each of some devices costs, for one aim, at points and over a grid.

    DataInvalid where an idle power is needed that nothing measured.
    """

    def __init__(self, costs: Sequence[DeviceCosts], aim: Aim) -> None:
        self.devices = costs
        self.aim = aim
        self._others_w = others_w(costs, aim.idle) if aim.needs_energy else [0.0] * len(costs)

    def at(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> list[Floats]:
        """The cost [points] of each device, by the models themselves."""
        asked = history, prompt, output
        each = ((d.seconds(*asked), d.joules(*asked) if self.aim.needs_energy else None) for d in self.devices)
        return [self._cost(number, *costs) for number, costs in enumerate(each)]

    def over(self, surfaces: Sequence[Surfaces], number: int) -> list[Floats]:
        """The cost [P, O] of each device at one history of the grid that the surfaces are over."""
        each = (
            (s.time.at(number), s.energy.at(number) if s.energy and self.aim.needs_energy else None) for s in surfaces
        )
        return [self._cost(device, *costs) for device, costs in enumerate(each)]

    def _cost(self, device: int, seconds: Floats, joules: Floats | None) -> Floats:
        if joules is not None and self._others_w[device]:
            joules = joules + seconds * self._others_w[device]
        return cost(self.aim.objective, seconds, joules, self.aim.cap_s)


class Surfaces(NamedTuple):
    """Time and energy of a device over a grid."""

    time: Surface
    energy: Surface | None


def surfaces(costs: Sequence[DeviceCosts], grid: Grid, aims: Sequence[Aim]) -> list[Surfaces]:
    """Those of each device; of energy where one of the aims needs it."""
    energy = any(aim.needs_energy for aim in aims)
    return [Surfaces(Surface(d.time, grid), Surface(d.energy, grid) if energy and d.energy else None) for d in costs]


def region_maps(costs: Sequence[DeviceCosts], grid: Grid, aims: Sequence[Aim], draws: int = DRAWS) -> list[Regions]:
    """The maps of some aims, with the share of so many `draws` in which labels flip; without it where there are none.

    DataInvalid where an idle power is needed that nothing measured.
    """
    here = surfaces(costs, grid, aims)
    found = [_map(Costs(costs, aim), here, grid) for aim in aims]
    if not draws:
        return found
    flipped = [np.zeros(grid.shape) for _ in aims]
    for possible in drawn(costs, draws):
        here = surfaces(possible, grid, aims)
        for aim, one, flips in zip(aims, found, flipped, strict=True):
            judged = Costs(possible, aim)
            for k in range(len(grid.history)):
                flips[k] += best_of(judged.over(here, k)) != one.label[k]
    return [replace(one, flips=flips / draws) for one, flips in zip(found, flipped, strict=True)]


def _map(judged: Costs, surfaces: Sequence[Surfaces], grid: Grid) -> Regions:
    aim, costs = judged.aim, judged.devices
    gains = tuple(gain_limit(each) for each in costs) if aim.needs_energy else (0.0,) * len(costs)
    ranked = [_ranked(judged.over(surfaces, k), gains) for k in range(len(grid.history))]
    label, best, margin, band = map(np.stack, zip(*ranked, strict=True))
    models = [model for each in costs for model in each.models]
    label[~seen(models, grid)] = UNSEEN
    simulated = any(model.origin == Origin.SIMULATED for model in models)
    return Regions(aim, tuple(each.device for each in costs), gains, simulated, grid, label, best, margin, band)


def gain_limit(costs: DeviceCosts) -> float:
    """What a device's meter may be off by, relative, at 95 %: by its certificate or data sheet, else an assumption."""
    known = costs.energy.gain_u_rel if costs.energy else 0.0
    return COVERAGE * known if known else UNCERTIFIED_REL


def best_of(each: Sequence[Floats]) -> NDArray[np.int8]:
    """The number of the device that costs least, or NONE."""
    stacked = np.stack(each)
    return np.where(np.isfinite(stacked.min(axis=0)), stacked.argmin(axis=0), NONE).astype(np.int8)


class _Ranked(NamedTuple):
    """Over a plane [P, O]."""

    label: NDArray[np.int8]
    best: Floats
    margin: Floats
    band: NDArray[np.bool_]


def _ranked(each: Sequence[Floats], gains: Sequence[float]) -> _Ranked:
    """Of what each device costs [P, O]."""
    best, second = each[0].copy(), np.full_like(each[0], np.inf)
    label = np.zeros(best.shape, np.int8)
    for number, costs in enumerate(each[1:], start=1):
        np.minimum(second, np.maximum(best, costs), out=second)
        label[costs < best] = number
        np.minimum(best, costs, out=best)
    none = np.isinf(best)
    best[none], label[none] = np.nan, NONE
    margin = second / best - 1
    return _Ranked(label, best, margin, _in_band(each, label, best, margin, np.array(gains)))


def _in_band(
    each: Sequence[Floats], label: NDArray[np.int8], best: Floats, margin: Floats, gains: Floats
) -> NDArray[np.bool_]:
    """Where a device costs so little more than the best that the gains of their two meters may be all there is."""
    found = np.zeros(label.shape, np.bool_)
    near = np.nonzero(margin < math.sqrt(2) * gains.max())
    limits = np.hypot(gains[label[near]], gains[:, None])
    excess = np.stack([costs[near] for costs in each]) / best[near] - 1
    found[near] = ((excess < limits) & (label[near] != np.arange(len(each))[:, None])).any(axis=0)
    return found
