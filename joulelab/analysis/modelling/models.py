"""Time and energy models: the fit of all that the phases support, and what it predicts for inferences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from joulelab.analysis.dataset import Phases
from joulelab.analysis.modelling.candidates import candidates
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.choice import supported
from joulelab.analysis.modelling.estimation import phase_model
from joulelab.analysis.modelling.forms import UNITS
from joulelab.analysis.modelling.intervals import LEVEL
from joulelab.analysis.modelling.losses import Loss
from joulelab.analysis.modelling.outliers import cleaned
from joulelab.analysis.modelling.phase_model import PhaseModel
from joulelab.analysis.modelling.sessions import Gain, measured
from joulelab.analysis.modelling.valid import Bound
from joulelab.analysis.shapes import Peak, Shape, label
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid, UserError

UNRESOLVED = 0.05
"""The share of a phase's rows that may be missing before totals are fitted by themselves instead of chained."""


class Outside(NamedTuple):
    """Why a model does not hold for what it is asked: it refuses, or it only warns."""

    refusal: str | None
    warning: str | None


@dataclass(frozen=True)
class Model:
    """What one target of one subject costs, in s or J. `device` also says what else tells it from its like.

    The total is the sum of prefill and decode, or has a model of its own where those could not be resolved. `refused`
    says, by phase, why there is none. `gain_u_rel` is the channel's standard uncertainty that all predictions have in
    common; `measured` are the first and the last day of the data.
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
    gain_u_rel: float
    measured: tuple[str, str] | None
    shape: Shape | None
    peak: Peak | None

    def predict(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, phase: str = "total") -> Floats:
        """The time [s] or energy [J] of inferences, within the range of the data or not; broadcasts.

        DataInvalid where the model lacks the phase.
        """
        points, shape = _points(history, prompt, output)
        return np.asarray(np.sum([part.predict(points) for part in self.parts(phase)], axis=0)).reshape(shape)

    def half_width(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, phase: str = "total") -> Floats:
        """Half the 95 % prediction intervals [s or J]; the gain errs alike in the parts of a total."""
        points, shape = _points(history, prompt, output)
        parts = self.parts(phase)
        costs = np.stack([part.predict(points) for part in parts])
        common = costs.sum(axis=0) ** 2 - (costs**2).sum(axis=0)
        gain = (stats.norm.ppf((1 + LEVEL) / 2) * self.gain_u_rel) ** 2 * common
        each = np.sum([part.half_width(points) ** 2 for part in parts], axis=0)
        return np.asarray(np.sqrt(each + gain)).reshape(shape)

    def components(
        self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, phase: str = "total"
    ) -> dict[str, Floats]:
        """What each term, by "phase term", adds to the prediction [s or J]."""
        points, shape = _points(history, prompt, output)
        found: dict[str, Floats] = {}
        for part in self.parts(phase):
            found |= {name: cost.reshape(shape) for name, cost in part.components(points).items()}
        return found

    def outside(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike, phase: str = "total") -> Outside:
        """Why the model does not hold for inferences: it refuses where it has only seen an empty cache and is asked
        what a filled one costs, and warns where they leave the range of the data.
        """
        points, _ = _points(history, prompt, output)
        parts = self.parts(phase)
        blind = [part.phase for part in parts if not part.seen_history and points["history"].max() > 0]
        beyond = dict.fromkeys(said for part in parts for said in part.beyond(points))
        who = f"the {self.target} model of {self.device}"
        refusal = f"{who} has only seen history 0: measure it with a filled cache" if blind else None
        return Outside(refusal, f"{who} is asked outside its range: {', '.join(beyond)}" if beyond else None)

    def drawn(self, n: int, seed: int) -> list[Model]:
        """Models that the data leave possible: coefficients drawn from their covariance, the systematic included."""
        rng = np.random.default_rng(seed)
        return [self._drawn(rng, 1 + self.gain_u_rel * rng.standard_normal()) for _ in range(n)]

    def _drawn(self, rng: np.random.Generator, gain: float) -> Model:
        return replace(self, phases=tuple(part.drawn(rng, self.gain_u_rel, gain) for part in self.phases))

    def parts(self, phase: str) -> list[PhaseModel]:
        """The models whose sum is `phase`. DataInvalid where one is missing."""
        known = {model.phase: model for model in self.phases}
        names = [phase] if phase in known else ["prefill", "decode"]
        if phase not in {*known, "total"} or not known.keys() >= set(names):
            why = ", ".join([f"only {each}" for each in known] or self.refused.values())
            raise DataInvalid(f"the {self.target} model of {self.device} has no {phase}: {why}")
        return [known[name] for name in names]

    def to_json(self) -> dict[str, Any]:
        unit = UNITS[self.target]
        described = {name: x and x.model_dump() for name, x in (("shape", self.shape), ("peak", self.peak))}
        return {**vars(self), "unit": unit, **described, "phases": [phase.to_json() for phase in self.phases]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Model:
        """The model that `to_json` wrote. DataInvalid where it is none."""
        try:
            given = {field.name: data[field.name] for field in fields(cls)}
            given["phases"] = tuple(map(PhaseModel.from_json, data["phases"]))
            given["measured"] = data["measured"] and tuple(data["measured"])
            given["shape"] = data["shape"] and Shape(**data["shape"])
            given["peak"] = data["peak"] and Peak(**data["peak"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataInvalid(f"no model of this joulelab: {error!r}") from None
        return cls(**given)


def read_models(path: Path) -> list[Model]:
    """The models of a file that `fit --out` wrote. DataInvalid where it is none."""
    try:
        return [Model.from_json(data) for data in json.loads(path.read_text())["models"]]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, DataInvalid) as error:
        raise DataInvalid(f"{path} has no models: write it with 'joulelab fit --out' ({error})") from None


def _points(history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> tuple[pd.DataFrame, tuple[int, ...]]:
    """Inferences as rows, and the shape that they were asked in."""
    h, p, o = np.broadcast_arrays(*np.atleast_1d(history, prompt, output))
    return pd.DataFrame({"history": h.ravel(), "prompt": p.ravel(), "output": o.ravel()}), h.shape


def fit(
    phases: Phases,
    min_periods: float = 5.0,
    loss: Loss = "wls",
    *,
    valid: Sequence[Bound] = (),
    gain: Gain | None = None,
) -> list[Model]:
    """Fit time and energy of every subject, without gross outliers.

    Energies of phases under `min_periods` sensor periods are left out, and what lies outside the range `valid`. With
    `gain`, sessions are pooled: each, or each day or run, has a gain of its own.
    """
    return [fit_model(case, phases, loss) for case in cleaned(cases(phases, min_periods, valid, gain))]


def parts(case: Case) -> tuple[str, ...]:
    """The phases whose models make up the total: prefill and decode, where their rows are whole, else the total."""
    totals = case.points("total")
    chained = ("prefill", "decode") if (totals["output"] > 1).any() else ("prefill",)
    return chained if all(_resolved(case, phase) for phase in chained) else ("total",)


def _resolved(case: Case, phase: str) -> bool:
    if phase not in case.phases or case.lost_share(phase) > UNRESOLVED:
        return False
    points = case.points(phase)
    return not points.empty and bool(supported(candidates(case.target, phase, points)[:1], points))


def fit_model(case: Case, phases: Phases, loss: Loss = "wls") -> Model:
    """The model of a case of these phases; what the data do not support is refused with the reason."""
    found, refused = [], {}
    own_total = parts(case) == ("total",)
    for phase in case.phases if own_total else [phase for phase in case.phases if phase != "total"]:
        try:
            case.check(phase)
            found.append(phase_model(case, phase, loss=loss))
        except DataInvalid as error:
            refused[phase] = str(error)
    watts, spread = _idle(case, phases.idle)
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
        idle_w=watts,
        idle_u_w=spread,
        data_sha256=_digest(case.rows),
        gain_u_rel=_gain_u_rel(case.rows),
        measured=measured(case.sessions),
        shape=phases.shapes.get(label(case.subject["model"], case.subject["quant"])),
        peak=phases.peaks.get(case.subject["device"]),
    )


def _idle(case: Case, idle: pd.DataFrame) -> tuple[float | None, float | None]:
    """The idle power and its spread [W] on the channel of a case."""
    own = idle[idle["run"].isin(case.rows["run"]) & (idle["channel"] == case.channel)]
    watts, spread = (own[name].astype(float).mean() for name in ("idle_w", "idle_u_w"))
    return None if np.isnan(watts) else float(watts), None if np.isnan(spread) else float(spread)


def _gain_u_rel(rows: pd.DataFrame) -> float:
    return float((rows["gain_load"] / rows["y"]).mean()) if len(rows) else 0.0


def _digest(rows: pd.DataFrame) -> str:
    """A SHA-256 of the rows that were fitted."""
    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()
