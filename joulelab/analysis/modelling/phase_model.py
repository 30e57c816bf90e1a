"""The model of one phase: its form, coefficients with their uncertainty, and what it predicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from joulelab.analysis.modelling.forms import Form, with_times
from joulelab.analysis.modelling.intervals import LEVEL
from joulelab.analysis.modelling.terms import parse
from joulelab.calibration.integrals import Floats


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
    is the standard deviation, relative, of a configuration's mean about what the form says, or what it might be unseen.

    `valid` is the range of `history`, `prompt` and `output` that the fit has seen. `timed` are the models of the times
    that an energy is chained to, by column of the points; `loss` is what the fit minimised, `bounds` are the
    coefficients that it would have negative.
    """

    phase: str
    form: Form
    coefficients: tuple[Coefficient, ...]
    covariance: list[list[float]]
    misfit: float
    configurations: int
    valid: dict[str, tuple[float, float]]
    timed: dict[str, PhaseModel]
    loss: str
    bounds: tuple[str, ...]

    @property
    def beta(self) -> Floats:
        """The coefficients [terms]."""
        return np.array([coefficient.value for coefficient in self.coefficients])

    def design(self, points: pd.DataFrame) -> Floats:
        """The work counts [points, terms]; where the form is chained, with the times that models predict."""
        return self.form.design(with_times(points, self.timed))

    def predict(self, points: pd.DataFrame) -> Floats:
        """The costs [s or J] of points with columns `history`, `prompt`, `output`."""
        return np.asarray(self.design(points) @ self.beta)

    def half_width(self, points: pd.DataFrame) -> Floats:
        """Half the 95 % intervals [points] of the predicted mean costs; what the form misses may be in each point."""
        design, predicted = self.design(points), self.predict(points)
        variance = np.einsum("nk,kl,nl->n", design, np.array(self.covariance), design) + (self.misfit * predicted) ** 2
        dof = max(self.configurations - self.form.fitted, 1)
        own = stats.t.ppf((1 + LEVEL) / 2, dof) * np.sqrt(variance)
        return np.asarray(np.hypot(own, self._late(points, predicted)))

    def _late(self, points: pd.DataFrame, predicted: Floats) -> Floats:
        """What the energy changes by [J] where the times that it is chained to are off by half their intervals."""
        times, changes = with_times(points, self.timed), [np.zeros(len(points))]
        for name, model in self.timed.items():
            late = times.assign(**{name: times[name] + model.half_width(points)})
            changes.append(self.form.design(late) @ self.beta - predicted)
        return np.asarray(np.linalg.norm(changes, axis=0))

    def components(self, points: pd.DataFrame) -> dict[str, Floats]:
        """What each term adds [points] in s or J."""
        each = self.design(points).T * self.beta[:, None]
        return {f"{self.phase} {term.name}": cost for term, cost in zip(self.form.terms, each, strict=True)}

    def drawn(self, rng: np.random.Generator, gain_u_rel: float, gain: float) -> PhaseModel:
        """One of the models that the data leave possible, where the channel reads `gain` times the truth.

        The covariance is split into what the gain brings, which is common to all phases, and the rest.
        """
        rest = np.array(self.covariance) - gain_u_rel**2 * np.outer(self.beta, self.beta)
        variances, axes = np.linalg.eigh(rest)
        random = axes @ (np.sqrt(np.maximum(variances, 0.0)) * rng.standard_normal(len(variances)))
        beta = np.where(self.form.signed, self.beta + random, np.maximum(self.beta + random, 0.0)) * gain
        coefficients = tuple(replace(c, value=float(b)) for c, b in zip(self.coefficients, beta, strict=True))
        return replace(self, coefficients=coefficients)

    @property
    def caveat(self) -> str | None:
        return None if self.seen_history else "has only seen history 0: it does not know what a filled cache costs"

    @property
    def seen_history(self) -> bool:
        return self.phase == "load" or self.valid["history"][1] > 0

    def beyond(self, points: pd.DataFrame) -> list[str]:
        """Which of the points' columns leave the range that the fit has seen."""
        return [
            f"{name} {_span(points[name])} (seen: {low:g} to {high:g})"
            for name, (low, high) in self.valid.items()
            if points[name].min() < low or points[name].max() > high
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "form": str(self.form),
            "target": self.form.target,
            "terms": [str(term) for term in self.form.terms],
            "coefficients": [asdict(coefficient) for coefficient in self.coefficients],
            "caveat": self.caveat,
            "timed": {name: model.to_json() for name, model in self.timed.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PhaseModel:
        own = {field.name: data[field.name] for field in fields(cls)}
        given = {
            "form": Form(data["target"], tuple(map(parse, data["terms"]))),
            "coefficients": tuple(Coefficient(**coefficient) for coefficient in data["coefficients"]),
            "bounds": tuple(data["bounds"]),
            "valid": {name: (low, high) for name, (low, high) in data["valid"].items()},
            "timed": {name: cls.from_json(model) for name, model in data["timed"].items()},
        }
        return cls(**own | given)


def _span(values: pd.Series[float]) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
