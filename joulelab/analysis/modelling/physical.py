"""What a device's energy goes into: arithmetic, memory traffic, and time; told apart only where its subjects differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from joulelab.analysis.dataset import SUBJECT, Phases, name_of
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.choice import SPARE
from joulelab.analysis.modelling.intervals import LEVEL
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.outliers import cleaned
from joulelab.analysis.modelling.phase_model import Coefficient
from joulelab.analysis.modelling.sessions import Gain
from joulelab.analysis.modelling.valid import Bound
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid

MAX_CONDITION = 10.0
"""Of the weighted design with columns of length 1: beyond it dependencies begin (Belsley, Kuh and Welsch, Regression
Diagnostics, 3.2), and here the counts themselves are not exact.
"""
MIN_SUBJECTS = 2
"""Of one subject alone, the predicted time is a sum of its arithmetic and bytes: what tells them apart is only what
their counts lack, tiles for instance.
"""
NAMES = (("e_flop", "J/FLOP"), ("e_byte", "J/B"), ("P_static", "W"))
DRAWS = 200


@dataclass(frozen=True)
class Physical:
    """The energy of a device on a channel as e_flop F + e_byte B + (idle + P_static) t: F FLOP of arithmetic, B bytes
    of weights and cache, and the time t that the time models predict.

    Across `subjects`, whose coefficients are taken as the same. `idle` says whether the measured idle power is a fixed
    part of it, so that `P_static` is what working at all adds. `error_percent` is the mean error of the energies that
    were fitted. `refused` is the reason why there are no coefficients, of which `condition` is the commonest.
    """

    device: str
    channel: str
    scope: str | None
    subjects: tuple[str, ...]
    idle: bool
    coefficients: tuple[Coefficient, ...] = ()
    condition: float | None = None
    error_percent: float | None = None
    refused: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Points(NamedTuple):
    """n points: FLOP, bytes and predicted seconds, idle power and its uncertainty [W], energies [J]."""

    flops: Floats
    bytes: Floats
    seconds: Floats
    idle_w: Floats
    idle_u_w: Floats
    energy: Floats

    @property
    def design(self) -> Floats:
        return np.stack([self.flops, self.bytes, self.seconds], axis=1)


class Sweep(NamedTuple):
    """The configurations of one phase of a case, with the models of its time and energy."""

    case: Case
    phase: str
    points: pd.DataFrame
    time: Model
    energy: Model

    @property
    def meter(self) -> tuple[str, str]:
        return self.case.subject["device"], str(self.case.channel)

    def seconds(self, time: Model) -> Floats:
        points = self.points
        return time.predict(points["history"], points["prompt"], points["output"], self.phase)

    def drawn(self) -> Floats:
        """What `DRAWS` other time models that the data leave possible predict [DRAWS, n]; each may miss a point."""
        predicted = np.stack([self.seconds(other) for other in self.time.drawn(DRAWS, seed=0)])
        misfit = max(part.misfit for part in self.time.parts(self.phase))
        return predicted * (1 + misfit * np.random.default_rng(0).standard_normal(predicted.shape))


def physical(
    fitted: Sequence[tuple[Phases, Sequence[Model]]],
    min_periods: float = 5.0,
    *,
    valid: Sequence[Bound] = (),
    gain: Gain | None = None,
) -> list[Physical]:
    """The physical energy of every device on every channel that has models, across tables with the models of each.

    The options are those that the models were fitted with.
    """
    found = ((cleaned(cases(phases, min_periods, valid, gain)), models) for phases, models in fitted)
    sweeps = [sweep for its, models in found for sweep in _sweeps(its, models)]
    sweeps.sort(key=lambda sweep: sweep.meter)
    return [_physical(list(its)) for _, its in groupby(sweeps, lambda sweep: sweep.meter)]


def _sweeps(found: Iterable[Case], models: Sequence[Model]) -> Iterator[Sweep]:
    """Prefill and decode, or the total where those are not resolved, of every energy."""
    for case in found:
        own = {(model.target, model.channel): model for model in models if model.subject == case.subject}
        if case.target == "energy":
            time, energy = own["time", None], own["energy", case.channel]
            for phase in [phase for phase in _parts(energy, "total") if _parts(time, phase)]:
                yield Sweep(case, phase, case.points(phase), time, energy)


def _parts(model: Model, phase: str) -> list[str]:
    """The phases whose models make up `phase`; none where one is missing."""
    with suppress(DataInvalid):
        return [part.phase for part in model.parts(phase)]
    return []


def _physical(sweeps: Sequence[Sweep]) -> Physical:
    idle = all(sweep.energy.idle_w is not None for sweep in sweeps)
    about = Physical(*sweeps[0].meter, sweeps[0].case.scope, tuple(_subjects(sweeps)), idle)
    try:
        found = [_points(sweep, idle) for sweep in sweeps]
        return _fitted(about, Points(*(np.concatenate(parts) for parts in zip(*found, strict=True))), sweeps)
    except DataInvalid as error:
        return replace(about, refused=str(error))


def _subjects(sweeps: Sequence[Sweep]) -> dict[str, None]:
    """The subjects, each by what tells it from the others."""
    subjects = [sweep.case.subject for sweep in sweeps]
    told = [name for name in SUBJECT if len({subject[name] for subject in subjects}) > 1]
    return dict.fromkeys(name_of(subject, told) for subject in subjects)


def _points(sweep: Sweep, idle: bool) -> Points:
    points, shape = sweep.points, sweep.energy.shape
    if shape is None:
        raise DataInvalid(f"nothing tells the shape of the language model of {sweep.case.label}: a map may name it")
    h, p, o = (points[name].to_numpy(np.float64) for name in ("history", "prompt", "output"))
    batch = sweep.case.subject["batch"] or 1
    return Points(
        flops=shape.flops(sweep.phase, h, p, o, batch),
        bytes=shape.bytes(sweep.phase, h, p, o, batch),
        seconds=sweep.seconds(sweep.time),
        idle_w=np.full(len(points), (sweep.energy.idle_w or 0.0) * idle),
        idle_u_w=np.full(len(points), (sweep.energy.idle_u_w or 0.0) * idle),
        energy=points["y"].to_numpy(np.float64),
    )


def _fitted(about: Physical, points: Points, sweeps: Sequence[Sweep]) -> Physical:
    n, k = points.design.shape
    if n < k + SPARE:
        raise DataInvalid(f"{n} configurations cannot support {k} coefficients: {k + SPARE} are needed")
    condition = _condition(points.design / points.energy[:, None])
    if len(about.subjects) < MIN_SUBJECTS or not condition < MAX_CONDITION:
        return replace(about, condition=condition, refused=_collinear(about, condition))
    beta = _solve(points)
    error = np.abs((points.design @ beta + points.idle_w * points.seconds) / points.energy - 1).mean()
    drawn = _redrawn(points, np.concatenate([sweep.drawn() for sweep in sweeps], axis=1), sweeps[0].energy.gain_u_rel)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    rows = zip(NAMES, beta, np.minimum(low, beta), np.maximum(high, beta), strict=True)
    coefficients = tuple(Coefficient(*name, *map(float, numbers)) for name, *numbers in rows)
    return replace(about, coefficients=coefficients, condition=condition, error_percent=100 * float(error))


def _condition(weighted: Floats) -> float:
    return float(np.linalg.cond(weighted / np.linalg.norm(weighted, axis=0)))


def _collinear(about: Physical, condition: float) -> str:
    alone = f"{about.subjects[0]} alone" if len(about.subjects) < MIN_SUBJECTS else " and ".join(about.subjects)
    needed = "" if condition < MAX_CONDITION else f", under {MAX_CONDITION:g} is needed"
    return (
        f"they go together in {alone} (condition number {condition:.3g}{needed}): sweep the power mode, the clock, the "
        "quantisation or the batch"
    )


def _solve(points: Points) -> Floats:
    """Non-negative coefficients that minimise the squares of relative errors."""
    X = points.design / points.energy[:, None]
    size = np.linalg.norm(X, axis=0)
    return np.asarray(nnls(X / size, 1 - points.idle_w * points.seconds / points.energy)[0] / size)


def _redrawn(points: Points, drawn: Floats, gain_u_rel: float) -> Floats:
    """Coefficients [DRAWS, 3] of points drawn with replacement, each with another time, idle power and gain."""
    rng = np.random.default_rng(0)
    found = []
    for seconds in drawn:
        idle_w = points.idle_w + rng.standard_normal() * points.idle_u_w
        other = points._replace(seconds=seconds, idle_w=idle_w)
        keep = rng.integers(len(seconds), size=len(seconds))
        found.append(_solve(Points(*(part[keep] for part in other))) * (1 + gain_u_rel * rng.standard_normal()))
    return np.array(found)
