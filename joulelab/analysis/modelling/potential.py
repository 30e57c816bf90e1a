"""What a design is to make sure of: the coefficients of the models, and what their forms may lack.

A design for one form alone is blind to its being the wrong one. So what the other candidates have beyond it stands
beside its terms, each with a prior about 0 (potential terms: DuMouchel and Jones, A simple Bayesian modification of
D-optimal designs to reduce dependence on an assumed model, Technometrics 36, 1994). Together they have the covariance
of a mixture in which each candidate form is as likely, so that what is measured also tells the forms apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import Case
from joulelab.analysis.modelling.design import Part, Problem
from joulelab.analysis.modelling.forms import Form, timed_by, with_times, workload
from joulelab.analysis.modelling.models import Model
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.calibration.integrals import Floats, Ints

LACKING = 0.2
"""How much, relative, a form may lack of a term over the candidates, if only that were missing; each of hundreds of
candidate forms takes its share of it.
"""
LEAST_NOISE = 1e-3
"""Repeats that agree better than that, relative, did so by chance."""
VAGUE = 1e-8
"""The precision of terms of the form itself before anything is measured; their columns are scaled to 1."""
SMALL = 1e-2
"""Potential terms that add up to less than this share of the largest are left out."""


def problem(
    fitted: Sequence[tuple[Case, Model]], points: pd.DataFrame, repeats: int, wait_s: float, limits: Mapping[str, float]
) -> Problem:
    """What is known at `points`, which have columns `history`, `prompt`, `output`, and at what was measured already.

    `fitted` begins with the time; `wait_s` is the mean wait before an inference. DataInvalid where one has no total.
    """
    time = fitted[0][1]
    measured = [case.points("total")[["history", "prompt", "output"]] for case, _ in fitted]
    everything = pd.concat([points, *measured]).astype(np.float64).drop_duplicates(ignore_index=True)
    seconds = np.maximum(_predicted(time, everything), fitted[0][0].points("total")["y"].min() / 2)
    parts = tuple(part for case, model in fitted for part in _parts(case, model, time, everything))
    return Problem(everything, repeats * (seconds + wait_s), repeats, parts, dict(limits))


def _predicted(model: Model, points: pd.DataFrame) -> Floats:
    return model.predict(points["history"], points["prompt"], points["output"])


def _parts(case: Case, model: Model, time: Model, points: pd.DataFrame) -> list[Part]:
    """A part for each phase that the total consists of."""
    costs, forms = {}, {}
    for each in model.parts("total"):
        forms[each.phase] = candidates(case.target, each.phase, _timed(each, time, case.points(each.phase)))
        happens = (points["output"] > 1).to_numpy() | (each.phase != "decode")
        least = case.points(each.phase)["y"].min() / 2
        costs[each.phase] = np.where(happens, np.maximum(each.predict(points), least), 0.0)
    total = np.sum(list(costs.values()), axis=0)
    return [
        _part(case, each, _timed(each, time, points), forms[each.phase], costs[each.phase], costs[each.phase] / total)
        for each in model.parts("total")
    ]


def _timed(model: PhaseModel, time: Model, points: pd.DataFrame) -> pd.DataFrame:
    """The points with the times that some candidates of an energy need."""
    known = {each.phase: each for each in time.phases}
    others = {name: known[phase] for name, phase in timed_by(model.phase).items() if phase in known}
    return with_times(points, others | model.timed)


def _part(
    case: Case, model: PhaseModel, points: pd.DataFrame, forms: Sequence[Form], cost: Floats, share: Floats
) -> Part:
    measured, key, runs = _configurations(case, model.phase, points)
    over = np.divide(1, cost, out=np.zeros_like(cost), where=cost > 0)
    own = model.form.design(points) * over[:, None]
    own /= np.maximum(np.abs(own).max(axis=0), np.finfo(float).tiny)
    potential = _potential(forms, points, over, own)
    costs = np.zeros(len(runs))
    costs[key] = cost
    return Part(
        target=case.target,
        rows=np.hstack([own, potential]),
        terms=own.shape[1],
        prior=np.r_[np.full(own.shape[1], VAGUE), np.ones(potential.shape[1])],
        share=share,
        key=key,
        runs=runs,
        misfit=model.misfit,
        noise=_noise(measured[measured["runs"] > 1], costs),
    )


def _noise(repeated: pd.DataFrame, costs: Floats) -> Floats:
    """What repeats of configurations that cost so much [n] vary by, relative: a part of the cost, and by stalls and
    the like as much whatever the cost.
    """
    variance = np.zeros_like(costs)
    if len(repeated):
        y, seen = repeated["y"].to_numpy(), repeated["cv"].to_numpy() ** 2
        expected = np.full(len(y), seen.mean() + LEAST_NOISE**2)
        for _ in range(2):  # variances vary as they are large
            law, _ = nnls(np.column_stack([np.ones_like(y), y**-2]) / expected[:, None], seen / expected)
            expected = law[0] + law[1] / y**2 + LEAST_NOISE**2
        variance = law[0] + law[1] / np.maximum(costs, y.min() / 2) ** 2
    return np.sqrt(variance + LEAST_NOISE**2)


def _configurations(case: Case, phase: str, points: pd.DataFrame) -> tuple[pd.DataFrame, Ints, Ints]:
    """The measured configurations of a phase, the number [n] of the one that each point has, and their runs [keys]."""
    names, measured = ["history", "prompt", "output"], case.points(phase)
    asked = points.assign(output=1.0) if phase == "prefill" else points
    key = np.asarray(asked.groupby(names).ngroup(), np.int64)
    known = asked.merge(measured.astype({"output": np.float64})[[*names, "runs"]], on=names, how="left")["runs"]
    runs = np.zeros(key.max() + 1, np.int64)
    runs[key] = known.fillna(0).to_numpy()
    return measured, key, runs


def _potential(forms: Sequence[Form], points: pd.DataFrame, over: Floats, own: Floats) -> Floats:
    """What the other candidates have beyond the form's own columns [n, few], each column as large as it may be."""
    uses = Counter(term for form in forms for term in form.terms)
    work = workload(points)
    counts = np.stack([term.count(work) * over for term in uses], axis=1)
    beyond = counts - own @ (np.linalg.pinv(own) @ counts)
    spread, size = np.ptp(beyond, axis=0), np.abs(counts).max(axis=0)
    telling = spread > 1e-6 * size
    weight = LACKING * np.sqrt(np.array([*uses.values()]) / len(forms))
    axes, sizes, _ = np.linalg.svd(beyond[:, telling] * (weight[telling] / spread[telling]), full_matrices=False)
    large = sizes > SMALL * sizes.max(initial=0.0)
    return np.asarray(axes[:, large] * sizes[large])
