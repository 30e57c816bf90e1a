"""The fit of one phase's model, with what is known of the errors of its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import sparse, stats

from joulelab.analysis.modelling.cases import KEYS, LOADS, Case
from joulelab.analysis.modelling.fitting import choose_form, fit_times
from joulelab.analysis.modelling.forms import Form, with_times
from joulelab.analysis.modelling.intervals import LEVEL, Errors, Uncertainty, clustered, resampled, uncertainty
from joulelab.analysis.modelling.losses import Bools, Fit, Loss, scale
from joulelab.analysis.modelling.phase_model import Coefficient, PhaseModel
from joulelab.calibration.integrals import Floats
from joulelab.quantities import Origin


def phase_model(case: Case, phase: str, form: Form | None = None, loss: Loss = "wls") -> PhaseModel:
    """The model of one phase of a case, in a given form or in the one that its points choose.

    DataInvalid, with the reason, where the points support no form.
    """
    timed = fit_times(case, phase, phase_model) if form is None or form.chained else {}
    points = with_times(case.points(phase), timed)
    sought = 0
    if form is None:
        form = choose_form(case.target, phase, points)
        sought = form.fitted - len(form.terms)
    X, signed = form.design(points), np.array(form.signed)
    fit = Fit(signed, loss)
    beta = fit(X, points["y"].to_numpy())
    active = ~signed & (beta == 0)
    timed = {name: timed[name] for name in form.chained}
    errors = _errors(points, case.correlated(phase), _late(form, timed, points, beta))
    told = case.origin != Origin.IMPORTED
    found = _uncertainty(X, points["y"].to_numpy(), errors, active, fit, sought, told)
    valid = {name: (float(points[name].min()), float(points[name].max())) for name in KEYS[phase]}
    return PhaseModel(
        phase=phase,
        form=form,
        coefficients=_coefficients(form, beta, found.half),
        covariance=found.covariance.tolist(),
        misfit=max(found.misfit, found.unseen),
        configurations=len(points),
        valid=valid,
        timed=timed,
        loss=loss,
        bounds=tuple(name for name, hit in zip(form.names, active, strict=True) if hit),
    )


def _coefficients(form: Form, beta: Floats, half: Floats) -> tuple[Coefficient, ...]:
    low = np.where(form.signed, beta - half, np.maximum(beta - half, 0.0))
    rows = zip(form.names, form.units, beta, low, beta + half, strict=True)
    return tuple(Coefficient(name, unit, *map(float, numbers)) for name, unit, *numbers in rows)


def _late(form: Form, timed: Mapping[str, PhaseModel], points: pd.DataFrame, beta: Floats) -> Floats:
    """What the errors of the time models' coefficients shift energies by [points, coefficients], in J."""
    found = [np.zeros((0, len(points)))]
    for name, model in timed.items():
        variances, axes = np.linalg.eigh(np.array(model.covariance))
        errors = model.design(points) @ (axes * np.sqrt(np.maximum(variances, 0.0)))
        shifted = (form.design(points.assign(**{name: points[name] + error})) for error in errors.T)
        found.append(np.stack([(design - form.design(points)) @ beta for design in shifted]))
    return np.concatenate(found).T


def _uncertainty(X: Floats, y: Floats, errors: Errors, active: Bools, fit: Fit, sought: int, told: bool) -> Uncertainty:
    """That of the fit without bounds where none is active; by resampling at bounds and for other losses.

    The intervals at bounds are those of the fit without, which the coefficients cut off at 0: resampling finds a bound
    again and again, however far from it the truth may be (Andrews, Econometrica 68, 2000).
    """
    size = scale(X, y)
    X, y, errors = X / size[:, None], y / size, errors.relative(size)
    if fit.loss == "wls":
        free = _unbounded(X, y, errors, sought, told)
        if not active.any():
            return free
    covariance = resampled(X, y, fit, errors.systematic)
    half = free.half if fit.loss == "wls" else _half(covariance, len(y) - sought)
    return replace(uncertainty(X[:, ~active], y, errors, sought), covariance=covariance, half=half)


def _unbounded(X: Floats, y: Floats, errors: Errors, sought: int, told: bool) -> Uncertainty:
    """Normal theory's; from residuals alone, clustered by configuration, where nothing is `told` of the rows."""
    found = uncertainty(X, y, errors, sought)
    if told:
        return found
    covariance = clustered(X, y, errors.systematic)
    return replace(found, covariance=covariance, half=_half(covariance, len(y) - sought))


def _half(covariance: Floats, numbers: int) -> Floats:
    """Half the 95 % intervals of coefficients found from so many `numbers`."""
    dof = max(numbers - len(covariance), 1)
    return np.asarray(stats.t.ppf((1 + LEVEL) / 2, dof) * np.sqrt(np.diag(covariance)))


def _errors(points: pd.DataFrame, correlated: sparse.csr_array, late: Floats) -> Errors:
    """In s or J. What was estimated together lacks some of its scatter: as much as its noise differs."""
    runs, hidden, y = (points[name].to_numpy(np.float64) for name in ("runs", "hidden", "y"))
    spare = runs - 1
    own = np.asarray((correlated * correlated).sum(axis=1)).ravel()
    apart = (hidden - own) * runs / np.maximum(spare, 1)
    repeated = np.where(spare > 0, ((points["cv"] * y) ** 2 - hidden + apart) / runs, 0.0)
    return Errors(np.concatenate([points[LOADS].to_numpy(), late], axis=1), correlated, repeated, spare)
