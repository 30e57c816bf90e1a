"""Least squares of relative errors, and the choice among forms by cross-validation inside the data that are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joulelab.analysis.forms import Form, candidates
from joulelab.calibration.integrals import Floats, Ints
from joulelab.errors import DataInvalid

SPARE = 2
"""Configurations that a fit needs beyond its coefficients."""
MAX_CONDITION = 1e3
"""Of the weighted design with columns of length 1: beyond it, 0.1 % of noise turns into all of a coefficient."""
INNER_FOLDS = 5
TIE = 0.05
"""A form with a term more must err less by this share."""


@dataclass(frozen=True)
class Fitted:
    """A form with its coefficients [terms]."""

    form: Form
    beta: Floats

    def predict(self, points: pd.DataFrame) -> Floats:
        return self.form.design(points) @ self.beta


def fit_phase(target: str, phase: str, points: pd.DataFrame) -> Fitted:
    """Choose a form and fit it to points with columns `history`, `prompt`, `output` and `y`.

    DataInvalid, with the reason, where the points support none of the candidates.
    """
    forms = candidates(target, phase)
    usable = supported(forms, points)
    if not usable:
        raise DataInvalid(refusal(forms[0], points) or "")
    form = choose(usable, points)
    return Fitted(form, solve(form.design(points), points["y"].to_numpy()))


def supported(forms: Sequence[Form], points: pd.DataFrame) -> list[Form]:
    """The forms that the points can support."""
    return [form for form in forms if refusal(form, points) is None]


def choose(forms: Sequence[Form], points: pd.DataFrame) -> Form:
    """The form with the fewest terms among those whose cross-validated mean relative error is about the least."""
    if len(forms) == 1:
        return forms[0]
    fold = folds(len(points), INNER_FOLDS, seed=0)
    errors = {form: _inner_error(form, points, fold) for form in forms}
    enough = min(errors.values()) * (1 + TIE) + np.finfo(np.float32).eps
    return min((f for f in forms if errors[f] <= enough), key=lambda form: (len(form.terms), errors[form]))


def _inner_error(form: Form, points: pd.DataFrame, fold: Ints) -> float:
    X, y = form.design(points), points["y"].to_numpy()
    errors = [np.abs(X[fold == k] @ solve(X[fold != k], y[fold != k]) / y[fold == k] - 1) for k in range(INNER_FOLDS)]
    return float(np.concatenate(errors).mean())


def folds(n: int, k: int, seed: int) -> Ints:
    """A fold number for each of n things, in random order and of equal frequency."""
    return np.random.default_rng(seed).permutation(n) % k


def refusal(form: Form, points: pd.DataFrame) -> str | None:
    """Why the points cannot support the form, or None."""
    X, y = form.design(points), points["y"].to_numpy()
    n, k = X.shape
    if n < k + SPARE:
        return f"{n} configurations cannot support {k} coefficients: {k + SPARE} are needed"
    weighted = X / y[:, None]
    length = np.linalg.norm(weighted, axis=0)
    condition = np.linalg.cond(weighted / np.where(length > 0, length, 1))
    if not condition < MAX_CONDITION:
        return f"the configurations cannot tell {', '.join(form.names)} apart (condition number {condition:.2g})"
    leverage = (np.linalg.qr(weighted)[0] ** 2).sum(axis=1)
    if leverage.max() > 1 - 1e-6:
        alone = points.iloc[int(leverage.argmax())]
        where = f"prompt {alone['prompt']:g}, output {alone['output']:g}"
        return f"a coefficient hangs on one configuration alone ({where})"
    return None


def solve(X: Floats, y: Floats) -> Floats:
    """The coefficients that minimise the squares of relative errors."""
    size = scale(X, y)
    return np.asarray(np.linalg.lstsq(X / size[:, None], y / size, rcond=None)[0], np.float64)


def scale(X: Floats, y: Floats) -> Floats:
    """What errors are relative to [points]: the values of a first fit relative to the observations.

    Dividing by the observations themselves favours those that came out low: with noise of relative variance v the fit
    would lie 2v too low. They serve where the first fit is not positive everywhere.
    """
    fitted = X @ np.linalg.lstsq(X / y[:, None], np.ones_like(y), rcond=None)[0]
    return fitted if fitted.min() > 0 else y
