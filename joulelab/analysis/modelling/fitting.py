"""Least squares of relative errors in the form that the data choose, and an energy's chain to its time model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import pandas as pd

from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import Case
from joulelab.analysis.modelling.choice import choose, refusal, supported
from joulelab.analysis.modelling.forms import Form, timed_by, with_times
from joulelab.analysis.modelling.losses import Fit, Loss
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid

T = TypeVar("T")
NO_TIMES: Mapping[str, Fitted] = MappingProxyType({})
MOST_POINTS = 600
"""So many points, drawn at random, are enough to choose a form by."""


@dataclass(frozen=True)
class Fitted:
    """A form with its coefficients [terms], and the models of the times that it is chained to, by column."""

    form: Form
    beta: Floats
    timed: Mapping[str, Fitted] = field(default_factory=dict)

    def predict(self, points: pd.DataFrame) -> Floats:
        """The costs [s or J] of points with columns `history`, `prompt`, `output`."""
        return np.asarray(self.form.design(with_times(points, self.timed)) @ self.beta)


def fit_case(case: Case, phase: str, loss: Loss = "wls") -> Fitted:
    """Choose a form for a phase of a case and fit it.

    DataInvalid, with the reason, where the points support none of the candidates.
    """
    timed = fit_times(case, phase, fit_case)
    return fit_phase(case.target, phase, case.points(phase), timed, loss)


def fit_times(case: Case, phase: str, fit: Callable[[Case, str], T]) -> dict[str, T]:
    """The models that `fit` makes of the times beside an energy, by column, without those that their rows do not
    support.
    """
    found: dict[str, T] = {}
    if case.timed is None:
        return found
    for name, which in timed_by(phase).items():
        with suppress(DataInvalid):
            found[name] = fit(case.timed, which)
    return found


def fit_phase(
    target: str, phase: str, points: pd.DataFrame, timed: Mapping[str, Fitted] = NO_TIMES, loss: Loss = "wls"
) -> Fitted:
    """Choose a form and fit it to points with columns `history`, `prompt`, `output` and `y`.

    DataInvalid, with the reason, where the points support none of the candidates.
    """
    chained = with_times(points, timed)
    form = choose_form(target, phase, chained)
    beta = Fit(np.array(form.signed), loss)(form.design(chained), chained["y"].to_numpy())
    return Fitted(form, beta, {name: timed[name] for name in form.chained})


def choose_form(target: str, phase: str, points: pd.DataFrame) -> Form:
    """The form that points with a `y` choose.

    DataInvalid, with the reason, where the points support none.
    """
    if points.empty:
        raise DataInvalid("no configuration is left to fit to")
    few = points if len(points) <= MOST_POINTS else points.sample(MOST_POINTS, random_state=0)
    forms = candidates(target, phase, few)
    found = supported(forms, few)
    if not found:
        raise DataInvalid(refusal(forms[0], few) or "")
    return choose(found, few)
