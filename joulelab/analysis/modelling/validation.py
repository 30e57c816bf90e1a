"""Verdicts: held-out errors with their intervals against the targets, or the reason why there can be no verdict."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy import stats

from joulelab.analysis.dataset import Phases
from joulelab.analysis.modelling.cases import Case, cases
from joulelab.analysis.modelling.crossval import HeldOut, Split, hold_out, in_sample
from joulelab.analysis.modelling.models import parts
from joulelab.analysis.modelling.outliers import cleaned
from joulelab.analysis.modelling.sessions import Gain, Gains
from joulelab.analysis.modelling.valid import Bound
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Origin, Scope
from joulelab.registry import nearest

LIMITS = {"time": 2.7, "energy": 5.2}
"""The targets: mean absolute percentage errors, held out."""
MIN_CONFIGURATIONS = 32
MIN_REPEATS = 5
MAX_DROPPED = 0.05
TIES = 9
"""Decimals of an error in percent beyond which processors may differ."""
RESAMPLES = 2000
SIMULATED = "simulated: never counts towards the targets"
NO_METER = "no meter: the energy is estimated, it only repeats the time"


@dataclass(frozen=True)
class Verdict:
    """Whether a model's held-out error keeps its limit. Errors in percent, against means over repeats.

    `bias_percent` is signed; `log_ratio_percent` the mean of |ln(predicted / observed)|; `weighted_percent` the sum of
    the errors over the sum of what was observed; `in_sample_percent` the MAPE of a model that has seen everything;
    `mape_all_percent` with short phases, `outside_mape_percent` of what lies outside the range `valid`.

    Beyond what `to_json` gives: `points`, the held-out configurations with `observed` and `predicted`; the `dropped`
    rows, each with its `cause`; the `forms` that the folds chose and how often; `method`, chained or direct; the
    `gains` taken out; `direct_mape_percent`, of totals fitted directly beside chained ones (where the two disagree,
    look for a mistake in the measurement).
    """

    device: str
    target: str
    phase: str
    mape_percent: float | None
    ci95_percent: tuple[float, float] | None
    limit_percent: float
    split: str
    noise_floor_percent: float | None
    configurations: int
    dropped_rows: int
    verdict: str
    reason: str | None
    channel: str | None
    scope: str | None
    origin: str
    valid: list[str]
    noise_floor_ci95_percent: tuple[float, float] | None
    in_sample_percent: float | None
    median_ape_percent: float | None
    p95_ape_percent: float | None
    bias_percent: float | None
    log_ratio_percent: float | None
    weighted_percent: float | None
    single_run_mape_percent: float | None
    mape_all_percent: float | None
    outside_mape_percent: float | None
    method: str
    points: pd.DataFrame
    dropped: list[dict[Hashable, Any]]
    forms: dict[str, int]
    gains: Gains | None
    direct_mape_percent: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields from `device` to `outside_mape_percent`."""
        names = [field.name for field in fields(self)]
        return {name: getattr(self, name) for name in names[: names.index("method")]}


def validate(
    phases: Phases,
    *,
    limits: Mapping[str, float] = LIMITS,
    split: Split = "configuration",
    min_periods: float = 5.0,
    seed: int = 1,
    valid: Sequence[Bound] = (),
    gain: Gain | None = None,
) -> list[Verdict]:
    """A verdict for each subject, target, channel and phase.

    Energies of phases under `min_periods` sensor periods are left out of the fits; `seed` draws folds and resamples.
    `split` says what is held out (see `hold_out`), `valid` in which range the models are declared valid, `gain` that
    sessions are pooled, each of them, or each day or run, with a gain of its own.
    """
    if split not in get_args(Split):
        raise UserError(f"cannot hold out by {split!r}{nearest(split, get_args(Split))}")
    found = _cases(phases, split, min_periods, valid, gain)
    return [
        _judge(case, phase, limits[case.target], split, seed, direct=True) for case in found for phase in case.judged
    ]


def across(
    phases: Phases,
    known: Sequence[Verdict] = (),
    *,
    min_periods: float = 5.0,
    seed: int = 1,
    valid: Sequence[Bound] = (),
    gain: Gain | None = None,
) -> list[Verdict]:
    """Verdicts on what the targets are about, the totals, or the phases of what has none, held out in every way: those
    of `known` that are such, and the others without `direct_mape_percent`.
    """
    have = {(v.device, v.channel, v.phase, v.split): v for v in known}
    return [
        have.get((case.label, case.channel, phase, split))
        or _judge(case, phase, LIMITS[case.target], split, seed, direct=False)
        for split in get_args(Split)
        for case in _cases(phases, split, min_periods, valid, gain)
        for phase in (["total"] if "total" in case.phases else case.judged)
    ]


def _cases(
    phases: Phases, split: Split, min_periods: float, valid: Sequence[Bound], gain: Gain | None
) -> Iterator[Case]:
    """A day that is held out brings no gain: nobody has seen it."""
    return cleaned(cases(phases, min_periods, valid, None if split == "day" else gain))


def _judge(case: Case, phase: str, limit: float, split: Split, seed: int, *, direct: bool) -> Verdict:
    summed = parts(case) if phase == "total" else (phase,)
    chained, interval, found, fitted = phase not in summed, None, HeldOut.nothing(), HeldOut.nothing()
    try:
        case.check(phase, by_day=split == "day")
        fitted = _in_sample(case, phase, summed, split)
        found = hold_out(case, phase, summed, split, seed)
        interval = confidence_interval(found.judged["ape_percent"].to_numpy(), seed)
        doubts = _doubts(case, phase, found.judged)
    except DataInvalid as refusal:
        doubts = [str(refusal)]
    verdict, reasons = _decide(interval, limit, [*[NO_METER] * (case.scope == Scope.ESTIMATE), *doubts])
    notes = [SIMULATED] if case.origin == Origin.SIMULATED else []
    points = case.points(phase) if found.points.empty else found.judged
    same: dict[str, Any] = {name: getattr(case, name) for name in ("target", "channel", "scope", "origin", "gains")}
    return Verdict(
        **(same | found.errors() | _floor(points, seed) | _lost(case, phase)),
        device=case.label,
        phase=phase,
        split=split,
        valid=list(map(str, case.valid)),
        limit_percent=limit,
        ci95_percent=interval,
        configurations=len(points),
        verdict=verdict,
        reason="; ".join([*notes, *reasons]) or None,
        method="chained" if chained else "direct",
        points=found.points,
        forms=dict(found.forms),
        in_sample_percent=fitted.errors()["mape_percent"],
        direct_mape_percent=_direct(case, split, seed) if direct and chained and interval else None,
    )


def _lost(case: Case, phase: str) -> dict[str, Any]:
    """The dropped rows; those outside the valid range do not count."""
    lost = case.lost(phase)
    return {"dropped": lost.to_dict("records"), "dropped_rows": int((~lost["outside"]).sum())}


def _floor(points: pd.DataFrame, seed: int) -> dict[str, Any]:
    interval = noise_floor_interval(points, seed)
    return {"noise_floor_percent": noise_floor(points), "noise_floor_ci95_percent": interval}


def noise_floor(points: pd.DataFrame) -> float | None:
    """The error in percent that a perfect model would have against means of so many repeats; None for single runs."""
    floors = _floors(points)
    return None if np.isnan(floors).all() else float(np.nanmean(floors))


def noise_floor_interval(points: pd.DataFrame, seed: int) -> tuple[float, float] | None:
    """Its 95 % interval over resampled configurations: beyond its lower end no model of these data will get."""
    floors = _floors(points)
    known = floors[~np.isnan(floors)]
    return confidence_interval(known, seed) if len(known) > 1 else None


def _floors(points: pd.DataFrame) -> Floats:
    """For each point in percent; the mean deviation of a normal variable is sqrt(2 / pi) of its standard deviation."""
    cv, runs = (points[name].to_numpy(np.float64) for name in ("cv", "runs"))
    return np.asarray(np.sqrt(2 / np.pi) * cv / np.sqrt(runs) * 100)


def confidence_interval(errors: Floats, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean error over resampled configurations, bias-corrected and accelerated (BCa).

    Efron, Better bootstrap confidence intervals, JASA 82 (1987): errors are skewed, plain percentiles come out low. It
    counts ties, which must be the same on every processor: what its rounding decides is rounded off.
    """
    errors = errors.round(TIES)
    if np.ptp(errors) < np.finfo(np.float32).eps * errors.max():
        return float(errors.min()), float(errors.max())
    found = stats.bootstrap((errors,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _doubts(case: Case, phase: str, points: pd.DataFrame) -> list[str]:
    """What keeps a verdict undecided however small the error is."""
    repeats, lost = points["runs"].median(), case.lost_share(phase)
    runs = "one run" if repeats == 1 else f"{repeats:g} runs"
    doubts = {
        f"{len(points)} configurations, {MIN_CONFIGURATIONS} needed": len(points) < MIN_CONFIGURATIONS,
        f"{runs} a configuration, {MIN_REPEATS} needed": repeats < MIN_REPEATS,
        f"{lost * 100:.1f} % of the rows dropped, {MAX_DROPPED * 100:.0f} % allowed": lost > MAX_DROPPED,
    }
    return [doubt for doubt, holds in doubts.items() if holds]


def _decide(interval: tuple[float, float] | None, limit: float, doubts: list[str]) -> tuple[str, list[str]]:
    if doubts or interval is None:
        return "undecided", doubts
    if interval[1] <= limit:
        return "pass", []
    if interval[0] > limit:
        return "fail", []
    return "undecided", ["the interval spans the limit"]


def _in_sample(case: Case, phase: str, summed: Sequence[str], split: Split) -> HeldOut:
    """First, so that what the data cannot support is refused by all of them; of days apart there is no one model."""
    return HeldOut.nothing() if split == "day" else in_sample(case, phase, summed)


def _direct(case: Case, split: Split, seed: int) -> float | None:
    try:
        return hold_out(case, "total", ("total",), split, seed).errors()["mape_percent"]
    except DataInvalid:
        return None
