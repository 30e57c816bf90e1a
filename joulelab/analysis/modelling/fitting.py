"""Least squares of relative errors in the form that the data choose, and an energy's chain to its time model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import Case
from joulelab.analysis.modelling.choice import choose, refusal, supported
from joulelab.analysis.modelling.forms import Form
from joulelab.analysis.modelling.losses import Fit, Loss
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid

MOST_POINTS = 600
"""So many points, drawn at random, are enough to choose a form by."""


@dataclass(frozen=True)
class Fitted:
    """A form with its coefficients [terms], and the time model that it is chained to."""

    form: Form
    beta: Floats
    timed: Fitted | None = None

    def predict(self, points: pd.DataFrame) -> Floats:
        """The costs [s or J] of points with columns `history`, `prompt`, `output`."""
        chained = points.assign(seconds=self.timed.predict(points)) if self.timed else points
        return np.asarray(self.form.design(chained) @ self.beta)


def fit_case(case: Case, phase: str, loss: Loss = "wls") -> Fitted:
    """Choose a form for a phase of a case and fit it.

    DataInvalid, with the reason, where the points support none of the candidates.
    """
    timed = fit_timed(case, phase)
    return fit_phase(case.target, phase, case.points(phase), timed, loss)


def fit_timed(case: Case, phase: str) -> Fitted | None:
    """The time model beside an energy, or None where its rows support none."""
    try:
        return fit_case(case.timed, phase) if case.timed else None
    except DataInvalid:
        return None


def fit_phase(target: str, phase: str, points: pd.DataFrame, timed: Fitted | None = None, loss: Loss = "wls") -> Fitted:
    """Choose a form and fit it to points with columns `history`, `prompt`, `output` and `y`.

    DataInvalid, with the reason, where the points support none of the candidates.
    """
    chained = points.assign(seconds=timed.predict(points)) if timed else points
    form = choose_form(target, phase, chained)
    beta = Fit(np.array(form.signed), loss)(form.design(chained), chained["y"].to_numpy())
    return Fitted(form, beta, timed if form.chained else None)


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
