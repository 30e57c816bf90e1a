"""Time and energy models: the fit of all that the phases support, its uncertainty, and predictions."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from joulelab.analysis.cases import KEYS, LOADS, Case, cases
from joulelab.analysis.dataset import Phases
from joulelab.analysis.fitting import Fitted, fit_phase, scale, solve, supported
from joulelab.analysis.forms import UNITS, Form, candidates
from joulelab.analysis.intervals import LEVEL, Errors, uncertainty
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid

UNRESOLVED = 0.05
"""The share of a phase's rows that may be missing before totals are fitted by themselves instead of chained."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient with its 95 % interval."""

    name: str
    unit: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PhaseModel:
    """The model of one phase. `covariance` of the coefficients includes the channel's systematic uncertainty; `misfit`
    is the standard deviation, relative, of a configuration's mean about what the form says.

    `valid` is the range of `history`, `prompt` and `output` that the fit has seen.
    """

    phase: str
    form: Form
    coefficients: tuple[Coefficient, ...]
    covariance: list[list[float]]
    misfit: float
    configurations: int
    valid: dict[str, tuple[float, float]]

    def predict(self, points: pd.DataFrame) -> Floats:
        return Fitted(self.form, np.array([coefficient.value for coefficient in self.coefficients])).predict(points)

    def half_width(self, points: pd.DataFrame) -> Floats:
        """Half the 95 % intervals [points] of the predicted mean costs; what the form misses may be in each point."""
        design, predicted = self.form.design(points), self.predict(points)
        variance = np.einsum("nk,kl,nl->n", design, np.array(self.covariance), design) + (self.misfit * predicted) ** 2
        dof = self.configurations - len(self.coefficients)
        return np.asarray(stats.t.ppf((1 + LEVEL) / 2, dof) * np.sqrt(variance))

    @property
    def caveat(self) -> str | None:
        seen_history = self.valid["history"][1] > 0
        return None if seen_history else "has only seen history 0: it does not know what a filled cache costs"

    def to_json(self) -> dict[str, Any]:
        coefficients = [asdict(coefficient) for coefficient in self.coefficients]
        return {**vars(self), "form": str(self.form), "coefficients": coefficients, "caveat": self.caveat}


@dataclass(frozen=True)
class Model:
    """What one target of one subject costs, in s or J. `device` also says what else tells it from its like.

    The total is the sum of prefill and decode, or has a model of its own where those could not be resolved. `refused`
    says, by phase, why there is none.
    """

    device: str
    subject: dict[str, Any]
    session: str | None
    target: str
    channel: str | None
    scope: str | None
    origin: str
    phases: tuple[PhaseModel, ...]
    refused: dict[str, str]
    idle_w: float | None
    idle_u_w: float | None
    data_sha256: str

    def predict(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, phase: str = "total") -> Floats:
        """The time [s] or energy [J] of inferences. DataInvalid where the model lacks the phase."""
        h, p, o = np.broadcast_arrays(*np.atleast_1d(history, prompt, output))
        points = pd.DataFrame({"history": h, "prompt": p, "output": o})
        known = {model.phase: model for model in self.phases}
        parts = [phase] if phase in known else ["prefill", "decode"]
        if phase not in {*known, "total"} or not known.keys() >= set(parts):
            raise DataInvalid(f"the {self.target} model of {self.device} has no {phase}, only {', '.join(known)}")
        return np.asarray(np.sum([known[part].predict(points) for part in parts], axis=0))

    def to_json(self) -> dict[str, Any]:
        unit = UNITS[self.target]
        return {**vars(self), "unit": unit, "phases": [phase.to_json() for phase in self.phases]}


def fit(phases: Phases, min_periods: float = 5.0) -> list[Model]:
    """Fit time and energy of every subject; energies of phases under `min_periods` sensor periods are left out."""
    return [_model(case, phases.idle) for case in cases(phases, min_periods)]


def parts(case: Case) -> tuple[str, ...]:
    """The phases whose models make up the total: prefill and decode, where their rows are whole, else the total."""
    totals = case.points("total")
    chained = ("prefill", "decode") if (totals["output"] > 1).any() else ("prefill",)
    return chained if all(_resolved(case, phase) for phase in chained) else ("total",)


def _resolved(case: Case, phase: str) -> bool:
    if phase not in case.phases or case.lost_share(phase) > UNRESOLVED:
        return False
    return bool(supported(candidates(case.target, phase), case.points(phase)))


def phase_model(case: Case, phase: str, form: Form | None = None) -> PhaseModel:
    """The model of one phase of a case, in a given form or in the one that its points choose.

    DataInvalid, with the reason, where the points support no form.
    """
    points = case.points(phase)
    form = form or fit_phase(case.target, phase, points).form
    X, y = form.design(points), points["y"].to_numpy()
    beta, size = solve(X, y), scale(X, y)
    found = uncertainty(X / size[:, None], y / size, _errors(points, case.correlated(phase), size))
    rows = zip(form.names, form.units, beta, beta - found.half, beta + found.half, strict=True)
    coefficients = tuple(Coefficient(name, unit, *map(float, numbers)) for name, unit, *numbers in rows)
    valid = {name: (float(points[name].min()), float(points[name].max())) for name in KEYS[phase]}
    return PhaseModel(phase, form, coefficients, found.covariance.tolist(), found.misfit, len(points), valid)


def _errors(points: pd.DataFrame, correlated: Floats, size: Floats) -> Errors:
    """Relative to `size`. What was estimated together lacks some of its scatter: as much as its noise differs."""
    runs, hidden, y = (points[name].to_numpy(np.float64) for name in ("runs", "hidden", "y"))
    spare = runs - 1
    apart = (hidden - np.diag(correlated)) * runs / np.maximum(spare, 1)
    repeated = np.where(spare > 0, ((points["cv"] * y) ** 2 - hidden + apart) / runs, 0.0)
    systematic = points[LOADS].to_numpy() / size[:, None]
    return Errors(systematic, correlated / np.outer(size, size), repeated / size**2, spare)


def _model(case: Case, idle: pd.DataFrame) -> Model:
    found, refused = [], {}
    own_total = parts(case) == ("total",)
    for phase in case.phases if own_total else [phase for phase in case.phases if phase != "total"]:
        try:
            case.check(phase)
            found.append(phase_model(case, phase))
        except DataInvalid as error:
            refused[phase] = str(error)
    own = idle[idle["run"].isin(case.rows["run"]) & (idle["channel"] == case.channel)]
    watts, spread = (own[name].astype(float).mean() for name in ("idle_w", "idle_u_w"))
    return Model(
        device=case.label,
        subject=case.subject,
        session=next(iter(case.sessions), None),
        target=case.target,
        channel=case.channel,
        scope=case.scope,
        origin=case.origin,
        phases=tuple(found),
        refused=refused,
        idle_w=None if np.isnan(watts) else float(watts),
        idle_u_w=None if np.isnan(spread) else float(spread),
        data_sha256=hashlib.sha256(case.rows.to_csv(index=False).encode()).hexdigest(),
    )
