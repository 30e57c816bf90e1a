"""Devices with other models that their data leave possible: how sure a map is shows in how much these differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.space.costs import DeviceCosts

SEED = 0


def drawn(costs: Sequence[DeviceCosts], draws: int) -> Iterator[list[DeviceCosts]]:
    """The devices so many times, each with a time and an energy model drawn by itself.

    Coefficients are drawn from their covariance. What a form misses is drawn as a factor of its phase: at any one point
    costs scatter by as much as they should, though not by themselves from point to point.
    """
    times = [_models(each.time, draws, 2 * number) for number, each in enumerate(costs)]
    energies = [
        _models(each.energy, draws, 2 * number + 1) if each.energy else [None] * draws
        for number, each in enumerate(costs)
    ]
    for time, energy in zip(zip(*times, strict=True), zip(*energies, strict=True), strict=True):
        yield [replace(each, time=t, energy=e) for each, t, e in zip(costs, time, energy, strict=True)]


def _models(model: Model, draws: int, seed: int) -> list[Model]:
    rng = np.random.default_rng([SEED, seed])
    return [
        replace(each, phases=tuple(_missed(part, rng) for part in each.phases)) for each in model.drawn(draws, seed)
    ]


def _missed(part: PhaseModel, rng: np.random.Generator) -> PhaseModel:
    """The same phase, dearer or cheaper by what its form misses."""
    factor = 1 + part.misfit * rng.standard_normal()
    coefficients = tuple(replace(each, value=each.value * factor) for each in part.coefficients)
    timed = {name: _missed(model, rng) for name, model in part.timed.items()}
    return replace(part, coefficients=coefficients, timed=timed)
